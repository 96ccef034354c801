"""Asking an OpenAI-compatible endpoint many prompts at once, until the answers are usable."""

import asyncio
import gc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from models.config import LLM
from models.errors import BadInput
from models.llm.completion import Usage, parsed, usage_of
from models.llm.failures import Failure
from models.llm.response_checks import judge
from tasks.llm.answer_run import ATTEMPTS, NOT_ASKED, AnswerRun
from tasks.llm.answer_store import Answer, Question
from tasks.llm.budget import Reservation, current_reservation
from tasks.llm.endpoint import client_options, failure, request_body
from tasks.llm.rate_limit import Bucket, Limits

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LOST = Failure("connection lost", "passing")
_LATE = Failure("timed out", "passing")


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
    from openai import AsyncOpenAI

    from tasks.llm.http_client import HttpClient

    llm, questions = run.config.llm, run.questions()
    http_client = HttpClient(llm.total_seconds, _limits(llm))
    async with (
        AsyncOpenAI(**client_options(llm, run.key), http_client=http_client) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(llm.concurrency):
            group.create_task(_work(client, run, questions))


def _limits(config: LLM) -> Limits | None:
    rates = config.requests_per_minute, config.tokens_per_minute
    if rates == (None, None):
        return None
    return Limits(Bucket(rates[0]), Bucket(rates[1]), config.max_tokens or 0)


async def _work(client: "AsyncOpenAI", run: AnswerRun, questions: Iterator[Question]) -> None:
    """Ask one question after the other, drawn from an iterator that all workers share."""
    for question in questions:
        answer, problem = await _answer(client, run, question.messages)
        if answer:
            run.keep(question.key, answer)
        run.note(question.key, problem)
        if run.stopped:
            return


async def _answer(
    client: "AsyncOpenAI", run: AnswerRun, messages: list[dict[str, str]]
) -> tuple[Answer | None, Failure | None]:
    """Ask until the answer is usable, at most `ATTEMPTS` times.

    Returns the answer with the tokens of all attempts, None if none arrived, and its problem.
    """
    began, usages, budget = perf_counter(), list[Usage](), run.budget
    text: str | None = None
    problem: Failure | None = None
    for attempt in range(ATTEMPTS):
        body = request_body(run.config, messages, attempt)
        reservation = await budget.reserve(budget.highest_cost(body)) if budget else None
        if budget and not reservation:
            problem = problem or Failure(NOT_ASKED)
            break
        completion, problem = await _send(client, body, reservation)
        if problem is not None:
            break
        usages.append(usage_of(completion))
        text, reason = judge(completion, run.config)
        if reason is None:
            break
        problem = Failure(reason)
    if not usages:
        return None, problem
    asked, written = map(_total, zip(*usages, strict=True))
    return Answer(text, asked, written, perf_counter() - began, datetime.now(UTC)), problem


async def _send(
    client: "AsyncOpenAI", body: dict[str, Any], reservation: Reservation | None
) -> tuple[Any, Failure | None]:
    """Send a request, with the client's own retries.

    Returns what came back with status 200, JSON or None, or else why nothing did.
    """
    import httpx2
    import openai

    current_reservation.set(reservation)
    completion, problem = None, None
    try:
        # `chat.completions.create` would send the same, at twice the CPU time per request, and
        # trusts what it parses.
        response = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
        completion = parsed(response.content)
    except openai.APITimeoutError:
        problem = _LATE
    except openai.APIStatusError as error:
        problem = failure(error.status_code, error.response.content, client.api_key)
    except openai.OpenAIError:
        problem = _LOST
    finally:
        if reservation:
            # What failed and says so is not billed; an answer without a count is, in full.
            cost = reservation.budget.tariff.cost(*usage_of(completion))
            reservation.close(0.0 if problem else cost)
    return completion, problem


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
