"""Asking an OpenAI-compatible endpoint many prompts, and what to think of its answers."""

import asyncio
import gc
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from models.config import LLM
from models.errors import BadInput
from tasks.answers import Answer, Question
from tasks.rate_limit import Bucket, Limits

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
ATTEMPTS = 3
"""How often a prompt is asked while the answers are unusable."""

_CONNECT_SECONDS = 5.0
_LONGEST_DETAIL = 300
_HOPELESS = 3
_MALFORMED = "malformed answer"


@dataclass
class Outcome:
    """How the asking went: why answers are missing (by key), and why it stopped, if it did."""

    missing: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    gave_up: bool = False
    failures_in_a_row: int = 0

    @property
    def stopped(self) -> bool:
        """True if nothing more is to be asked."""
        return self.gave_up or self.refused is not None


class _Refused(Exception):
    """The endpoint will refuse every request like this one."""


def endpoint(config: LLM) -> str:
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


def ask(
    questions: Iterator[Question],
    config: LLM,
    key: str,
    keep: Callable[[str, Answer], None],
    tolerated: int,
) -> Outcome:
    """Ask all `questions`, `config.concurrency` at a time, until done or hopeless.

    Args:
        questions: consumed as answers come, so they need not be in memory all at once.
        config: the endpoint.
        key: the API key.
        keep: called with every answer as it arrives, usable or not.
        tolerated: how many answers may be missing; a long row of failures beyond it ends the
            asking, for the sake of time and money.
    """
    # What was imported by now stays: with it out of the collector's way, collections in between
    # the answers cost milliseconds instead of tenths of seconds.
    gc.freeze()
    try:
        return asyncio.run(_ask(questions, config, key, keep, tolerated))
    finally:
        gc.unfreeze()


async def _ask(
    questions: Iterator[Question],
    config: LLM,
    key: str,
    keep: Callable[[str, Answer], None],
    tolerated: int,
) -> Outcome:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    outcome = Outcome()

    async def work(client: "AsyncOpenAI") -> None:
        # All workers draw from one iterator; what was sent before a stop is still received.
        for question in questions:
            if outcome.stopped:
                return
            try:
                answer, problem = await _attempt(client, config, question.messages)
            except _Refused as error:
                outcome.refused = str(error)
                return
            if answer:
                keep(question.key, answer)
            if problem is None:
                outcome.failures_in_a_row = 0
                continue
            outcome.missing[question.key] = problem
            outcome.failures_in_a_row += 1
            hopeless = outcome.failures_in_a_row >= _HOPELESS * config.concurrency
            outcome.gave_up |= hopeless and len(outcome.missing) > tolerated

    async with AsyncOpenAI(
        api_key=key,
        base_url=endpoint(config),
        timeout=config.timeout_seconds,
        max_retries=config.max_retries,
        http_client=DefaultAioHttpClient(**_hooks(config)),
    ) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(config.concurrency):
                group.create_task(work(client))
    return outcome


def _hooks(config: LLM) -> dict[str, Any]:
    """Keep to the limits where every request passes, the client's own retries included."""
    requests, tokens = (
        Bucket(rate) if rate else None
        for rate in (config.requests_per_minute, config.tokens_per_minute)
    )
    if requests is None and tokens is None:
        return {}
    limits = Limits(requests, tokens, config.max_tokens)

    async def before(request: Any) -> None:
        await limits.admit(request.content)

    async def after(response: Any) -> None:
        await response.aread()
        limits.settle(response.request.content, _tokens_used(response))

    return {"event_hooks": {"request": [before], "response": [after]}}


def _tokens_used(response: Any) -> int | None:
    """What the endpoint counted for an answer; None where it does not say."""
    try:
        used = response.json()["usage"]["total_tokens"]
    except (KeyError, TypeError, ValueError):
        return None
    return used if isinstance(used, int) else None


async def _attempt(
    client: "AsyncOpenAI", config: LLM, messages: list[dict[str, str]]
) -> tuple[Answer | None, str | None]:
    """Ask until the answer is usable, at most `ATTEMPTS` times.

    Returns:
        The answer with the tokens of all attempts, None if none arrived; and the problem if no
        attempt gave a usable one.
    """
    began, usages = perf_counter(), list[Any]()
    text: str | None = None
    problem: str | None = None
    for attempt in range(ATTEMPTS):
        completion, problem = await _complete(client, config, messages, attempt)
        if completion is None and problem != _MALFORMED:
            break
        usages.append(completion.get("usage") if isinstance(completion, dict) else None)
        if problem is None:
            text, problem = judge(completion)
        if problem is None:
            break
    if not usages:
        return None, problem
    answer = Answer(
        text=text,
        prompt_tokens=_total(usages, "prompt_tokens"),
        completion_tokens=_total(usages, "completion_tokens"),
        latency_seconds=perf_counter() - began,
        finished_at=datetime.now(UTC),
    )
    return answer, problem


async def _complete(
    client: "AsyncOpenAI", config: LLM, messages: list[dict[str, str]], attempt: int
) -> tuple[Any, str | None]:
    """One request, with the client's own retries: the completion, or why there is none.

    Raises:
        _Refused: if the endpoint will refuse every such request.
    """
    import openai

    body = request_body(config, messages, attempt)
    try:
        # `chat.completions.create` would send the same, at twice the CPU time per request.
        completion = await client.post("/chat/completions", cast_to=object, body=body)
    except openai.APITimeoutError:
        return None, "timed out"
    except openai.APIConnectionError:
        return None, "connection lost"
    except openai.APIStatusError as error:
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        if passing and error.code != "insufficient_quota":
            return None, f"HTTP {error.status_code}"
        raise _Refused(explain(error, config, client.api_key)) from None
    except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError):
        return None, _MALFORMED
    return completion, None


def request_body(config: LLM, messages: list[dict[str, str]], attempt: int) -> dict[str, Any]:
    """What is sent for a prompt, at its `attempt`-th repetition."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
    }
    if config.seed is not None:
        # The same seed would bring the same unusable answer again.
        body["seed"] = config.seed + attempt
    return body


def judge(completion: Any) -> tuple[str | None, str | None]:
    """The text of a completion, or why it is of no use."""
    try:
        choice = completion["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        text = (message.get("content") or "").strip()
    except (AttributeError, IndexError, KeyError, TypeError):
        return None, _MALFORMED
    if message.get("refusal") or finish_reason == "content_filter":
        return None, "refused"
    if finish_reason == "length":
        return None, "truncated at max_tokens"
    return (text, None) if text else (None, "empty")


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


def _total(usages: list[Any], name: str) -> int | None:
    counts = [usage.get(name) for usage in usages if isinstance(usage, dict)]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known else None
