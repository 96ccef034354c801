"""An OpenAI-compatible endpoint: where it is, what it is sent, what its refusals mean."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from models.config import LLM, Embeddings, Profiles
from models.errors import BadInput
from models.llm.pricing import Tariff
from models.llm.response_checks import response_format

OPENAI_URL = "https://api.openai.com/v1"

_CONNECT_SECONDS = 5.0
_LONGEST_DETAIL = 300


def endpoint(config: LLM | Embeddings) -> str:
    """The endpoint's address. The client's own default would depend on the environment."""
    return (config.base_url or OPENAI_URL).rstrip("/")


def require_reachable(config: LLM) -> None:
    """Connect once, before anything is asked.

    Raises:
        BadInput: if nothing listens at the endpoint's host and port.
    """
    url = endpoint(config)
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.hostname or ""
    except (KeyError, ValueError):
        host, port = "", 0
    if not host:
        raise BadInput(f"profiles.llm.base_url: {url} is no address; write https://HOST[:PORT]/v1")
    proxies = getproxies()
    if (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise BadInput(
            f"profiles.llm.base_url: {url} cannot be reached ({error}); start the server, "
            "correct the address or check the network"
        ) from error


def request_body(config: Profiles, messages: list[dict[str, str]], attempt: int) -> dict[str, Any]:
    """What is sent for a prompt, at its `attempt`-th repetition."""
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


def bound(tariff: Tariff, body: dict[str, Any]) -> float:
    """US dollars that a request with this body may cost."""
    return tariff.most(len(json.dumps(body, ensure_ascii=False).encode()), body["max_tokens"])


def explain(error: Any, config: LLM, key: str) -> str:
    """One sentence about a refusal, without the key, which the server's words may quote."""
    body = error.body
    detail = str(body.get("message") or body if isinstance(body, dict) else error.message)
    detail = detail.replace(key, "[key]")[:_LONGEST_DETAIL]
    fix = {
        401: "check the key in " + (config.api_key_secret or config.api_key_env),
        403: "check what the key may do",
        404: "check profiles.llm.model and profiles.llm.base_url",
        429: "check the account's quota",
    }.get(error.status_code, "correct profiles.llm or the prompt")
    return (
        f"profiles.llm: {endpoint(config)} answered {error.status_code} to model {config.model}: "
        f"{detail}; {fix}"
    )
