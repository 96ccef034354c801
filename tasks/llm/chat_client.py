"""Asking an OpenAI-compatible endpoint many prompts, until the answers are of use."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from models.config import LLM, Profiles
from models.llm.response_checks import MALFORMED, Usage, judge, usage_of
from tasks.llm.answer_store import Answer, Question
from tasks.llm.budget import Budget, Flight
from tasks.llm.endpoint import bound, endpoint, explain, request_body
from tasks.llm.rate_limit import Bucket, Limits

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ATTEMPTS = 3
"""How often a prompt is asked while the answers are unusable."""

NOT_ASKED = "not asked"
"""Why an answer is missing where the asking stopped before its question."""

_HOPELESS = 3
_LOST = "connection lost"
_flight: ContextVar[Flight | None] = ContextVar("flight", default=None)
"""What the question being asked may cost, for the hooks that see each of its requests."""


@dataclass
class Outcome:
    """How the asking went: why answers are missing (by key), and why it stopped, if it did."""

    missing: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    gave_up: bool = False
    over_budget: bool = False
    failures_in_a_row: int = 0

    @property
    def stopped(self) -> bool:
        """True if nothing more is to be asked."""
        return self.gave_up or self.over_budget or self.refused is not None


class _Refused(Exception):
    """The endpoint will refuse every request like this one."""


def ask(
    questions: Iterator[Question],
    config: Profiles,
    key: str,
    keep: Callable[[str, Answer], None],
    tolerated: int,
    budget: Budget | None = None,
) -> Outcome:
    """Ask all `questions`, `concurrency` at a time, until done, hopeless or out of money.

    Args:
        questions: consumed as answers come, so they need not be in memory all at once.
        config: the endpoint, and what an answer must be.
        key: the API key.
        keep: called with every answer as it arrives, usable or not.
        tolerated: how many answers may be missing; a long row of failures beyond it ends the
            asking, for the sake of time and money.
        budget: what may be spent; None means any amount.
    """
    # What was imported by now stays: with it out of the collector's way, collections in between
    # the answers cost milliseconds instead of tenths of seconds.
    gc.freeze()
    try:
        return asyncio.run(_ask(questions, config, key, keep, tolerated, budget))
    finally:
        gc.unfreeze()


async def _ask(
    questions: Iterator[Question],
    config: Profiles,
    key: str,
    keep: Callable[[str, Answer], None],
    tolerated: int,
    budget: Budget | None,
) -> Outcome:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    outcome, llm = Outcome(), config.llm

    async def work(client: "AsyncOpenAI") -> None:
        # All workers draw from one iterator; what was sent before a stop is still received.
        for question in questions:
            try:
                answer, problem = await _attempt(client, config, question.messages, budget)
            except _Refused as error:
                outcome.refused = str(error)
                return
            if answer:
                keep(question.key, answer)
            outcome.over_budget = budget is not None and budget.exhausted
            if problem is None:
                outcome.failures_in_a_row = 0
            elif problem != NOT_ASKED:
                outcome.missing[question.key] = problem
                outcome.failures_in_a_row += 1
                hopeless = outcome.failures_in_a_row >= _HOPELESS * llm.concurrency
                outcome.gave_up |= hopeless and len(outcome.missing) > tolerated
            if outcome.stopped:
                return

    async with AsyncOpenAI(
        api_key=key,
        base_url=endpoint(llm),
        timeout=llm.timeout_seconds,
        max_retries=llm.max_retries,
        http_client=DefaultAioHttpClient(**_hooks(llm, budget)),
    ) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(llm.concurrency):
                group.create_task(work(client))
    return outcome


def _hooks(config: LLM, budget: Budget | None) -> dict[str, Any]:
    """Keep to limits and budget where every request passes, the client's own retries included."""
    import openai

    requests, tokens = (
        Bucket(rate) if rate else None
        for rate in (config.requests_per_minute, config.tokens_per_minute)
    )
    if requests is None and tokens is None and budget is None:
        return {}
    limits = Limits(requests, tokens, config.max_tokens)

    async def before(request: Any) -> None:
        await limits.admit(request.content)
        flight = _flight.get()
        if flight and not flight.sent():
            raise openai.OpenAIError("over budget")  # of all errors, the client retries but these

    async def after(response: Any) -> None:
        await response.aread()
        limits.settle(response.request.content, _tokens_used(response))
        if flight := _flight.get():
            flight.answered()

    return {"event_hooks": {"request": [before], "response": [after]}}


def _tokens_used(response: Any) -> int | None:
    """What the endpoint counted for an answer; None where it does not say."""
    try:
        used = response.json()["usage"]["total_tokens"]
    except (KeyError, TypeError, ValueError):
        return None
    return used if isinstance(used, int) else None


async def _attempt(
    client: "AsyncOpenAI",
    config: Profiles,
    messages: list[dict[str, str]],
    budget: Budget | None,
) -> tuple[Answer | None, str | None]:
    """Ask until the answer is usable, at most `ATTEMPTS` times.

    Returns:
        The answer with the tokens of all attempts, None if none arrived; and the problem if no
        attempt gave a usable one.
    """
    began, usages = perf_counter(), list[Usage]()
    text: str | None = None
    problem: str | None = None
    for attempt in range(ATTEMPTS):
        body = request_body(config, messages, attempt)
        flight = await budget.depart(bound(budget.tariff, body)) if budget else None
        if budget and not flight:
            problem = problem or NOT_ASKED
            break
        completion, problem = await _complete(client, config.llm, body, flight)
        if completion is None and problem != MALFORMED:
            break
        usages.append(usage_of(completion))
        if problem is None:
            text, problem = judge(completion, config)
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
    client: "AsyncOpenAI", config: LLM, body: dict[str, Any], flight: Flight | None
) -> tuple[Any, str | None]:
    """One request, with the client's own retries: the completion, or why there is none.

    Raises:
        _Refused: if the endpoint will refuse every such request.
    """
    _flight.set(flight)
    completion, problem = None, None
    try:
        completion, problem = await _send(client, config, body)
    finally:
        if flight:
            # What failed and says so is not billed; an answer without a count is, at its bound.
            failed = completion is None and problem != MALFORMED
            flight.land(0.0 if failed else flight.budget.tariff.cost(*usage_of(completion)))
    return completion, problem


async def _send(client: "AsyncOpenAI", config: LLM, body: dict[str, Any]) -> tuple[Any, str | None]:
    import openai

    try:
        # `chat.completions.create` would send the same, at twice the CPU time per request.
        return await client.post("/chat/completions", cast_to=object, body=body), None
    except openai.APITimeoutError:
        return None, "timed out"
    except openai.APIConnectionError:
        return None, _LOST
    except openai.APIStatusError as error:
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        if passing and error.code != "insufficient_quota":
            return None, f"HTTP {error.status_code}"
        raise _Refused(explain(error, config, client.api_key)) from None
    except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError):
        return None, MALFORMED
    except openai.OpenAIError:
        return None, _LOST


def _total(usages: list[Usage], name: str) -> int | None:
    known = [count for usage in usages if (count := getattr(usage, name)) is not None]
    return sum(known) if known else None
