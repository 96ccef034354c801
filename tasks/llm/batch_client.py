"""Asking through the Batch API: everything uploaded at once, answered within a day, at half price.

What is submitted is kept in the ledger until its answers are in the store, so that a run that is
killed, or started on another day, collects what an earlier one has paid for instead of asking
again.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from prefect.logging import get_logger

from models.config import LLM, Profiles
from models.errors import BadInput
from models.llm.response_checks import judge, usage_of
from tasks.llm.answer_store import Answer, AnswerStore, Question
from tasks.llm.batch_ledger import MARK, Submission, open_submissions, prepare
from tasks.llm.budget import Budget
from tasks.llm.chat_client import ATTEMPTS, Outcome
from tasks.llm.endpoint import bound, endpoint, explain, request_body

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

MOST_REQUESTS = 50_000
MOST_BYTES = 100 * 2**20
"""Of one batch; the API's own limits are 50,000 requests and 200 MB."""

_ENDED = {"completed", "expired", "cancelled", "failed"}
_PATH: Final = "/v1/chat/completions"


def ask_in_batches(
    store: AnswerStore,
    config: Profiles,
    key: str,
    keep: Callable[[str, Answer], None],
    budget: Budget | None = None,
) -> Outcome:
    """Ask what the store does not know, until it does or the attempts are used up.

    Args:
        store: with the run's questions.
        config: the endpoint, and what an answer must be.
        key: the API key.
        keep: called with every answer as it is collected, usable or not.
        budget: a batch that may cost more than is left is not submitted; batches of an earlier
            run were paid for by that one. None means any amount.

    Raises:
        BadInput: if the endpoint refuses, cannot be reached or does not finish in time; what was
            submitted stays in the ledger, and a rerun picks it up.
    """
    import openai

    outcome, llm = Outcome(), config.llm
    deadline = time.monotonic() + llm.batch_wait_hours * 3600
    url = endpoint(llm)
    try:
        with openai.OpenAI(
            api_key=key,
            base_url=url,
            timeout=llm.timeout_seconds,
            max_retries=llm.max_retries,
        ) as client:
            collect = _Collector(client, store, config, keep, outcome)
            for attempt in range(ATTEMPTS):
                waiting = _submit(client, store, config, attempt, budget)
                for submission in waiting:
                    answers = collect(submission, _ended(client, submission, llm, deadline))
                    _settle(budget, submission, answers)
                if not waiting or not store.unanswered():
                    break
    except openai.APIStatusError as error:
        raise BadInput(explain(error, llm, key)) from None
    except openai.APIConnectionError:
        raise BadInput(
            f"profiles.llm.base_url: {url} cannot be reached; check the network. Batches go on "
            "without this run, and a rerun picks them up"
        ) from None
    outcome.over_budget = budget is not None and budget.exhausted
    return outcome


def _submit(
    client: "OpenAI", store: AnswerStore, config: Profiles, attempt: int, budget: Budget | None
) -> list[Submission]:
    """Submit what no open batch has; returns the open batches that this run waits for."""
    url = endpoint(config.llm)
    wanted = {question.key for question in store.questions()}
    known = [_found(client, submission) for submission in open_submissions(url)]
    waiting = []
    for submission in filter(None, known):
        if submission.keys & wanted:
            waiting.append(submission)
        elif store.knows(submission.keys):
            submission.close()  # a run was killed between its last answer and this
    underway = frozenset[str]().union(*(submission.keys for submission in waiting))
    fresh = (question for question in store.questions() if question.key not in underway)
    for requests in _chunks(_requests(fresh, config, attempt)):
        most = sum(bound(budget.tariff, row["body"]) for row in requests) if budget else 0.0
        if budget:
            budget.exhausted = not budget.take(most)
            if budget.exhausted:
                break
        submission = prepare(url, requests)
        submission.reserved = most
        _create(client, submission)
        get_logger("profiles").info(
            "Batch %s: %d questions submitted", submission.batch_id, len(requests)
        )
        waiting.append(submission)
    return waiting


def _settle(budget: Budget | None, submission: Submission, answers: list[Answer]) -> None:
    """Replace what a batch of this run might have cost by what it did."""
    if budget and submission.reserved:
        costs = [budget.tariff.cost(of.prompt_tokens, of.completion_tokens) for of in answers]
        known = [cost for cost in costs if cost is not None]
        all_known = len(known) == len(costs)
        budget.settle(submission.reserved, sum(known) if all_known else submission.reserved)


def _requests(
    questions: Iterable[Question], config: Profiles, attempt: int
) -> Iterator[dict[str, Any]]:
    for question in questions:
        body = request_body(config, question.messages, attempt)
        yield {"custom_id": question.key, "method": "POST", "url": _PATH, "body": body}


def _chunks(requests: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many requests as one batch takes."""
    chunk, size = list[dict[str, Any]](), 0
    for request in requests:
        length = len(json.dumps(request)) + 1
        if chunk and (len(chunk) >= MOST_REQUESTS or size + length > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(request)
        size += length
    if chunk:
        yield chunk


def _found(client: "OpenAI", submission: Submission) -> Submission | None:
    """An open submission with its batch id; None if the batch never came to be.

    A run killed while it created a batch does not know the batch's id, but the batch, if there
    is one, has ours.
    """
    if submission.batch_id is None:
        for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get(MARK) == submission.name:
                submission.created(batch.id)
                return submission
        submission.close()
        return None
    return submission


def _create(client: "OpenAI", submission: Submission) -> None:
    """Upload and create, without the client's retries: they might create the batch twice."""
    import openai

    try:
        file = client.files.create(
            file=(submission.requests.name, submission.requests.read_bytes()), purpose="batch"
        )
        batch = client.with_options(max_retries=0).batches.create(
            input_file_id=file.id,
            endpoint=_PATH,
            completion_window="24h",
            metadata={MARK: submission.name},
        )
    except openai.APIStatusError as error:
        if error.status_code < 500:
            submission.close()
        raise
    submission.created(batch.id)


def _ended(client: "OpenAI", submission: Submission, config: LLM, deadline: float) -> "Batch":
    """Wait until a batch has ended, well or not."""
    import openai

    assert submission.batch_id is not None
    while True:
        try:
            batch = client.batches.retrieve(submission.batch_id)
        except openai.NotFoundError:
            submission.close()
            raise BadInput(
                f"profiles.llm: {submission.endpoint} no longer knows batch {submission.batch_id}; "
                "run again to submit its questions anew"
            ) from None
        if batch.status in _ENDED:
            return batch
        if time.monotonic() + config.batch_poll_seconds > deadline:
            done = batch.request_counts.completed if batch.request_counts else 0
            raise BadInput(
                f"profiles: batch {batch.id} is {batch.status} with {done} of "
                f"{len(submission.keys)} answers after profiles.llm.batch_wait_hours of "
                f"{config.batch_wait_hours:g}; it goes on, and a rerun picks it up"
            )
        time.sleep(config.batch_poll_seconds)


@dataclass(frozen=True)
class _Collector:
    """Puts what batches brought into the store."""

    client: "OpenAI"
    store: AnswerStore
    config: Profiles
    keep: Callable[[str, Answer], None]
    outcome: Outcome

    def __call__(self, submission: Submission, batch: "Batch") -> list[Answer]:
        """Put a batch's answers into the store, then close it; a batch that failed is refused.

        A run killed in between collects the same answers again: those that the store has are
        skipped.

        Returns:
            The answers that are new, usable or not.
        """
        ended = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.created_at
        # The endpoint counts whole seconds: our id tells apart batches that ended in the same one.
        mark = timedelta(microseconds=int(submission.name[:8], 16) % 1_000_000)
        finished_at = datetime.fromtimestamp(ended, UTC) + mark
        missing, answers = self.outcome.missing, list[Answer]()
        open_keys = set(submission.keys)
        for key, completion, problem in self._rows(batch):
            if key not in open_keys:
                continue
            open_keys.remove(key)
            text, problem = (None, problem) if problem else judge(completion, self.config)
            missing.pop(key, None)
            if problem:
                missing[key] = problem
            if completion is not None and not self.store.has(key, finished_at):
                seconds = float(ended - batch.created_at)
                answers.append(_answer(text, completion, seconds, finished_at))
                self.keep(key, answers[-1])
        missing |= dict.fromkeys(open_keys, f"batch {batch.status}")
        submission.close()
        if batch.status == "failed":
            raise BadInput(_refusal(submission, batch))
        return answers

    def _rows(self, batch: "Batch") -> Iterator[tuple[str, Any, str | None]]:
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            yield from map(_read, self.client.files.content(file_id).text.splitlines())


def _refusal(submission: Submission, batch: "Batch") -> str:
    faults = batch.errors.data if batch.errors and batch.errors.data else []
    said = "; ".join(str(fault.message) for fault in faults[:3]) or "no reason given"
    return (
        f"profiles.llm: {submission.endpoint} refused batch {batch.id}: {said[:300]}; correct "
        "profiles.llm or the prompt"
    )


def _read(line: str) -> tuple[str, Any, str | None]:
    """Key, completion (None if there is none) and problem of one line of output."""
    try:
        row = json.loads(line)
        key, response = row["custom_id"], row.get("response") or {}
        status = response.get("status_code")
    except (AttributeError, KeyError, TypeError, ValueError):
        return "", None, None
    if status == 200:
        return key, response.get("body"), None
    reason = (row.get("error") or {}).get("code")
    return key, None, f"HTTP {status}" if status else f"batch: {reason or 'no answer'}"


def _answer(text: str | None, completion: Any, seconds: float, finished_at: datetime) -> Answer:
    return Answer(
        text,
        *usage_of(completion),
        latency_seconds=seconds,
        finished_at=finished_at,
    )
