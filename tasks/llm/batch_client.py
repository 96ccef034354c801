"""Asking through the Batch API: everything uploaded at once, answered within a day, at half price.

What is submitted stays in the ledger until its answers are in the store, so that a run that is
killed, or started on another day, collects what an earlier one has paid for instead of asking
again.
"""

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from prefect.logging import get_logger

from models.config import LLM
from models.errors import BadInput
from models.llm.response_checks import judge, usage_of
from tasks.llm.answer_run import ATTEMPTS, AnswerRun
from tasks.llm.answer_store import Answer
from tasks.llm.batch_ledger import MARK, Submission, open_submissions, prepare
from tasks.llm.endpoint import client_options, endpoint, explain, request_body

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

MOST_REQUESTS = 50_000
MOST_BYTES = 100 * 2**20
"""Of one batch; the API's own limits are 50,000 requests and 200 MB."""

_ENDED = {"completed", "expired", "cancelled", "failed"}
_PATH: Final = "/v1/chat/completions"


def ask_in_batches(run: AnswerRun) -> None:
    """Ask the unanswered questions until all have an answer or the attempts are used up.

    A batch that may cost more than is left of the budget is not submitted; batches of an earlier
    run were paid for by that one.

    Raises:
        BadInput: if the endpoint refuses, cannot be reached or does not finish in time; what was
            submitted stays in the ledger, and the next run collects it.
    """
    import openai

    llm = run.config.llm
    deadline = time.monotonic() + llm.batch_wait_hours * 3600
    try:
        with openai.OpenAI(**client_options(llm, run.key)) as client:
            for attempt in range(ATTEMPTS):
                submissions = _submit(client, run, attempt)
                for submission in submissions:
                    batch = _ended(client, submission, llm, deadline)
                    _charge(run, submission, _collect(client, run, submission, batch))
                if not submissions or not run.store.unanswered():
                    break
    except openai.APIStatusError as error:
        raise BadInput(explain(error, llm, run.key)) from None
    except openai.APIConnectionError:
        raise BadInput(
            f"profiles.llm.base_url: {endpoint(llm)} cannot be reached. Check the network and run "
            "again: batches go on without this run, and the next one collects them"
        ) from None


def _submit(client: "OpenAI", run: AnswerRun, attempt: int) -> list[Submission]:
    """Submit what no open batch has; returns the open batches that this run waits for."""
    url, budget = endpoint(run.config.llm), run.budget
    wanted = {question.key for question in run.store.questions()}
    submissions = []
    for submission in open_submissions(url):
        if not _exists(client, submission):
            submission.close()
        elif submission.keys & wanted:
            submissions.append(submission)
        elif run.store.knows(submission.keys):
            submission.close()  # a run was killed between its last answer and this
    underway = frozenset[str]().union(*(submission.keys for submission in submissions))
    for requests in _chunks(_requests(run, underway, attempt)):
        reserved = sum(budget.highest_cost(row["body"]) for row in requests) if budget else 0.0
        if budget:
            budget.exhausted = not budget.fits(reserved)
            if budget.exhausted:
                break
        submission = prepare(url, requests)
        submission.reserved = reserved
        _create(client, submission)
        get_logger("profiles").info(
            "Batch %s: %d questions submitted", submission.batch_id, len(requests)
        )
        submissions.append(submission)
    return submissions


def _charge(run: AnswerRun, submission: Submission, answers: list[Answer]) -> None:
    """Replace what a batch of this run might have cost by what it did."""
    if run.budget and submission.reserved:
        costs = [run.tariff.cost(a.prompt_tokens, a.completion_tokens) for a in answers]
        known = [cost for cost in costs if cost is not None]
        spent = sum(known) if len(known) == len(costs) else submission.reserved
        run.budget.charge(submission.reserved, spent)


def _requests(run: AnswerRun, underway: frozenset[str], attempt: int) -> Iterator[dict[str, Any]]:
    for question in run.store.questions():
        if question.key not in underway:
            body = request_body(run.config, question.messages, attempt)
            yield {"custom_id": question.key, "method": "POST", "url": _PATH, "body": body}


def _chunks(requests: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut into as many requests as one batch may have."""
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


def _exists(client: "OpenAI", submission: Submission) -> bool:
    """True if a submission's batch was created, of which it then has the id.

    A run killed while it created a batch does not know the batch's id, but the batch, if there
    is one, has ours.
    """
    if submission.batch_id is None:
        for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get(MARK) == submission.name:
                submission.created(batch.id)
                break
    return submission.batch_id is not None


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
                f"profiles.llm: {submission.endpoint} no longer knows batch "
                f"{submission.batch_id}. Run again to submit its questions anew"
            ) from None
        if batch.status in _ENDED:
            return batch
        if time.monotonic() + config.batch_poll_seconds > deadline:
            done = batch.request_counts.completed if batch.request_counts else 0
            raise BadInput(
                f"profiles: batch {batch.id} is {batch.status} with {done} of "
                f"{len(submission.keys)} answers after profiles.llm.batch_wait_hours of "
                f"{config.batch_wait_hours:g}. Run again later: the batch goes on, and the next "
                "run collects it"
            )
        time.sleep(config.batch_poll_seconds)


def _collect(
    client: "OpenAI", run: AnswerRun, submission: Submission, batch: "Batch"
) -> list[Answer]:
    """Put a batch's answers into the store, then close it; returns the new ones, usable or not.

    A run killed in between collects the same answers again: those that the store has are skipped.
    """
    ended = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.created_at
    # The endpoint counts whole seconds: our id tells apart batches that ended in the same one.
    mark = timedelta(microseconds=int(submission.name[:8], 16) % 1_000_000)
    finished_at = datetime.fromtimestamp(ended, UTC) + mark
    answers, open_keys = list[Answer](), set(submission.keys)
    for key, completion, problem in _rows(client, batch):
        if key not in open_keys:
            continue
        open_keys.remove(key)
        text, problem = (None, problem) if problem else judge(completion, run.config)
        run.missing.pop(key, None)
        if problem:
            run.missing[key] = problem
        if completion is not None and not run.store.has(key, finished_at):
            answers.append(_answer(text, completion, ended - batch.created_at, finished_at))
            run.keep(key, answers[-1])
    run.missing |= dict.fromkeys(open_keys, f"batch {batch.status}")
    submission.close()
    if batch.status == "failed":
        faults = batch.errors.data if batch.errors and batch.errors.data else []
        said = "; ".join(str(fault.message) for fault in faults[:3]) or "no reason given"
        raise BadInput(
            f"profiles.llm: {submission.endpoint} refused batch {batch.id}: {said[:300]}. "
            "Correct profiles.llm or the prompt"
        )
    return answers


def _rows(client: "OpenAI", batch: "Batch") -> Iterator[tuple[str, Any, str | None]]:
    """Key, completion (None if there is none) and problem of each line of output."""
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        for line in client.files.content(file_id).text.splitlines():
            try:
                row = json.loads(line)
                key, response = row["custom_id"], row.get("response") or {}
                status = response.get("status_code")
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
            reason = (row.get("error") or {}).get("code")
            problem = f"HTTP {status}" if status else f"batch: {reason or 'no answer'}"
            yield (key, response.get("body"), None) if status == 200 else (key, None, problem)


def _answer(text: str | None, completion: Any, seconds: float, finished_at: datetime) -> Answer:
    return Answer(text, *usage_of(completion), float(seconds), finished_at)
