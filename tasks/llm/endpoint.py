"""An OpenAI-compatible endpoint: its address, its key, what it is sent, what its refusals mean."""

import os
import socket
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect.blocks.system import Secret

from models.config import LLM, Embeddings, Profiles
from models.credentials import masked
from models.errors import BadInput
from models.llm.failures import Failure, failure_of
from models.llm.response_checks import response_format
from models.plain_text import for_terminal

OPENAI_URL = "https://api.openai.com/v1"

_CONNECT_SECONDS = 5.0
PATHS = ("/chat/completions", "/embeddings")
"""What clients add to an address by themselves; providers show addresses that end in it."""


def endpoint(config: LLM | Embeddings) -> str:
    """Return the endpoint's address. The client's own default depends on the environment."""
    address, mark, query = (config.base_url or OPENAI_URL).strip().partition("?")
    address = address.rstrip("/")
    for path in PATHS:
        address = address.removesuffix(path).rstrip("/")
    return address + (mark + query if query else "")


def client_options(config: LLM | Embeddings, key: str) -> dict[str, Any]:
    """Return the arguments of an OpenAI client, synchronous or not."""
    address, _, query = endpoint(config).partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    return {
        "api_key": key,
        "base_url": address,
        "default_query": parameters,
        # Azure's addresses with a version read the key from a header of their own.
        "default_headers": {"api-key": key} if "api-version" in parameters else {},
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
    llm = config.llm
    # The same seed would bring the same unusable answer again.
    seed = None if llm.seed is None else llm.seed + attempt
    sampling = {"temperature": llm.temperature, "max_tokens": llm.max_tokens, "seed": seed}
    body: dict[str, Any] = {"model": llm.model, "messages": messages}
    names = {str(key): name for key, name in llm.rename.items()}
    body |= {names.get(key, key): value for key, value in sampling.items() if value is not None}
    if shape := response_format(config.fields):
        body["response_format"] = shape
    return body


def failure(status: int, content: bytes, key: str) -> Failure:
    """Judge an HTTP error without the key, which the server's words may quote."""
    return failure_of(status, content, lambda words: masked(for_terminal(words), key))


def explain(refusal: Failure, config: LLM | Embeddings) -> str:
    """Describe a refusal that concerns every request, and what to correct."""
    section = "profiles.llm" if isinstance(config, LLM) else "embeddings"
    fix = {
        401: "Check the key in " + (config.api_key_secret or config.api_key_env),
        403: "Check what the key may do",
        404: f"Check {section}.model and {section}.base_url",
        **dict.fromkeys((402, 429), "Check the account's quota"),
    }.get(refusal.status or 0, f"Correct {section} or the prompt")
    if refusal.parameter in ("temperature", "seed"):
        fix = f"Set {section}.{refusal.parameter} to null, which leaves it out"
    elif refusal.parameter == "response_format":
        fix = "Leave profiles.fields empty"
    elif refusal.parameter:
        fix = (
            f"Set {section}.rename to {{max_tokens: max_completion_tokens}}, or "
            f"{section}.max_tokens to a number that the model allows, or to null"
        )
    return (
        f"{section}: {endpoint(config)} answered {refusal.status} to model {config.model}: "
        f"{refusal.reason.partition(': ')[2] or 'no reason given'}. {fix}"
    )
