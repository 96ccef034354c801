"""Asking an OpenAI-compatible endpoint many prompts at once, until the answers are usable."""

import asyncio
import gc
import json
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from models.config import LLM
from models.errors import BadInput
from models.llm.response_checks import MALFORMED, Usage, judge, usage_of
from tasks.llm.answer_run import ATTEMPTS, NOT_ASKED, AnswerRun
from tasks.llm.answer_store import Answer, Question
from tasks.llm.budget import Budget, Reservation
from tasks.llm.endpoint import client_options, explain, request_body
from tasks.llm.rate_limit import Bucket, Limits

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LOST = "connection lost"
_reservation: ContextVar[Reservation | None] = ContextVar("reservation", default=None)
"""What the current question may cost, for the hooks that see each of its requests."""


class _Refused(Exception):
    """The endpoint will refuse every request like this one."""


def ask(run: AnswerRun) -> None:
    """Ask the unanswered questions, `concurrency` at a time, until done, hopeless or out of money.

    Raises:
        BadInput: if the endpoint refuses; what was sent before is received and kept.
    """
    # What was imported by now stays: with it out of the collector's way, collections in between
    # the answers cost milliseconds instead of tenths of seconds.
    gc.freeze()
    try:
        asyncio.run(_ask(run))
    finally:
        gc.unfreeze()
    if run.refused:
        raise BadInput(run.refused)


async def _ask(run: AnswerRun) -> None:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    llm, questions = run.config.llm, run.store.questions()
    http_client = DefaultAioHttpClient(**_hooks(llm, run.budget))
    async with (
        AsyncOpenAI(**client_options(llm, run.key), http_client=http_client) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(llm.concurrency):
            group.create_task(_work(client, run, questions))


async def _work(client: "AsyncOpenAI", run: AnswerRun, questions: Iterator[Question]) -> None:
    """Ask one question after the other, drawn from an iterator that all workers share."""
    for question in questions:
        try:
            answer, problem = await _answer(client, run, question.messages)
        except _Refused as error:
            run.refused = str(error)
            return
        if answer:
            run.keep(question.key, answer)
        run.note(question.key, problem)
        if run.stopped:
            return


async def _answer(
    client: "AsyncOpenAI", run: AnswerRun, messages: list[dict[str, str]]
) -> tuple[Answer | None, str | None]:
    """Ask until the answer is usable, at most `ATTEMPTS` times.

    Returns the answer with the tokens of all attempts, None if none arrived, and its problem.
    """
    began, usages, budget = perf_counter(), list[Usage](), run.budget
    text: str | None = None
    problem: str | None = None
    for attempt in range(ATTEMPTS):
        body = request_body(run.config, messages, attempt)
        reservation = await budget.reserve(budget.highest_cost(body)) if budget else None
        if budget and not reservation:
            problem = problem or NOT_ASKED
            break
        completion, problem = await _send(client, run.config.llm, body, reservation)
        if completion is None and problem != MALFORMED:
            break
        usages.append(usage_of(completion))
        if problem is None:
            text, problem = judge(completion, run.config)
        if problem is None:
            break
    if not usages:
        return None, problem
    asked, written = map(_total, zip(*usages, strict=True))
    return Answer(text, asked, written, perf_counter() - began, datetime.now(UTC)), problem


async def _send(
    client: "AsyncOpenAI", config: LLM, body: dict[str, Any], reservation: Reservation | None
) -> tuple[Any, str | None]:
    """Send a request, with the client's own retries; returns the completion, or a problem."""
    import openai

    _reservation.set(reservation)
    completion, problem = None, None
    try:
        # `chat.completions.create` would send the same, at twice the CPU time per request.
        completion = await client.post("/chat/completions", cast_to=object, body=body)
    except openai.APITimeoutError:
        problem = "timed out"
    except openai.APIStatusError as error:
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        if not passing or error.code == "insufficient_quota":
            raise _Refused(explain(error, config, client.api_key)) from None
        problem = f"HTTP {error.status_code}"
    except (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError):
        problem = MALFORMED
    except openai.OpenAIError:
        problem = _LOST
    finally:
        if reservation:
            # What failed and says so is not billed; an answer without a count is, in full.
            failed = completion is None and problem != MALFORMED
            cost = reservation.budget.tariff.cost(*usage_of(completion))
            reservation.close(0.0 if failed else cost)
    return completion, problem


def _hooks(config: LLM, budget: Budget | None) -> dict[str, Any]:
    """Keep to limits and budget where every request passes, the client's own retries included."""
    import openai

    rates = config.requests_per_minute, config.tokens_per_minute
    if rates == (None, None) and budget is None:
        return {}
    limits = Limits(Bucket(rates[0]), Bucket(rates[1]), config.max_tokens)

    async def before(request: Any) -> None:
        await limits.admit(request.content)
        reservation = _reservation.get()
        if reservation and not reservation.sent():
            raise openai.OpenAIError("over budget")  # of all errors, the client retries but these

    async def after(response: Any) -> None:
        await response.aread()
        limits.correct(response.request.content, _tokens_used(response))
        if reservation := _reservation.get():
            reservation.answered()

    return {"event_hooks": {"request": [before], "response": [after]}}


def _tokens_used(response: Any) -> int | None:
    """Read the endpoint's count for an answer; None where it does not say."""
    try:
        used = response.json()["usage"]["total_tokens"]
    except (KeyError, TypeError, ValueError):
        return None
    return used if isinstance(used, int) else None


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
