"""An OpenAI-compatible endpoint: its address, its key, what it is sent, what its refusals mean."""

import os
import socket
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect.blocks.system import Secret

from models.config import LLM, Embeddings, Profiles
from models.credentials import masked
from models.errors import BadInput
from models.llm.response_checks import response_format

OPENAI_URL = "https://api.openai.com/v1"

_CONNECT_SECONDS = 5.0
_LONGEST_DETAIL = 300


def endpoint(config: LLM | Embeddings) -> str:
    """Return the endpoint's address. The client's own default depends on the environment."""
    return (config.base_url or OPENAI_URL).rstrip("/")


def client_options(config: LLM, key: str) -> dict[str, Any]:
    """Return the arguments of an OpenAI client, synchronous or not."""
    return {
        "api_key": key,
        "base_url": endpoint(config),
        "timeout": config.timeout_seconds,
        "max_retries": config.max_retries,
    }


def api_key(config: LLM | Embeddings) -> str:
    """Read the endpoint's key from the Prefect Secret block if one is named, else a variable.

    `BadInput` if there is none, or no header can carry it, names the source, never the key.
    """
    section = "profiles.llm" if isinstance(config, LLM) else "embeddings"
    if config.api_key_secret is not None:
        source = f"Prefect Secret {config.api_key_secret}"
        try:
            key = str(cast("Secret[str]", Secret.load(config.api_key_secret)).get()).strip()
        except ValueError:
            raise BadInput(
                f"{section}.api_key_secret: there is no {source}. Create the block, or leave "
                f"the option empty to use the environment variable {config.api_key_env}"
            ) from None
    else:
        source = f"environment variable {config.api_key_env}"
        key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        without = {
            "profiles.llm": "profiles.provider to offline",
            "embeddings": "embeddings.provider to sentence-transformers",
        }
        raise BadInput(
            f"{section}: the {source} is empty, so there is no key. Set the environment variable "
            f"{config.api_key_env} (to any word for a server that checks none), or name a Prefect "
            f"Secret block in {section}.api_key_secret, or set {without[section]}"
        )
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"{section}: the {source} holds characters that no key has. Correct it")
    return key


def require_reachable(config: LLM) -> None:
    """Connect once, before any request; `BadInput` if nothing listens at the endpoint's port."""
    url = endpoint(config)
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.hostname or ""
    except (KeyError, ValueError):
        host, port = "", 0
    if not host:
        raise BadInput(f"profiles.llm.base_url: {url} is no address. Write https://HOST[:PORT]/v1")
    proxies = getproxies()
    if (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise BadInput(
            f"profiles.llm.base_url: {url} cannot be reached ({error}). Start the server, "
            "correct the address or check the network"
        ) from error


def request_body(config: Profiles, messages: list[dict[str, str]], attempt: int) -> dict[str, Any]:
    """Build the request of a prompt at its `attempt`-th repetition."""
    body: dict[str, Any] = {
        "model": config.llm.model,
        "messages": messages,
        "temperature": config.llm.temperature,
        "max_tokens": config.llm.max_tokens,
    }
    if config.llm.seed is not None:
        # The same seed would bring the same unusable answer again.
        body["seed"] = config.llm.seed + attempt
    if shape := response_format(config.fields):
        body["response_format"] = shape
    return body


def explain(error: Any, config: LLM, key: str) -> str:
    """Describe a refusal without the key, which the server's words may quote."""
    body = error.body
    detail = str(body.get("message") or body if isinstance(body, dict) else error.message)
    detail = masked(detail, key)[:_LONGEST_DETAIL]
    fix = {
        401: "Check the key in " + (config.api_key_secret or config.api_key_env),
        403: "Check what the key may do",
        404: "Check profiles.llm.model and profiles.llm.base_url",
        429: "Check the account's quota",
    }.get(error.status_code, "Correct profiles.llm or the prompt")
    return (
        f"profiles.llm: {endpoint(config)} answered {error.status_code} to model {config.model}: "
        f"{detail}. {fix}"
    )
