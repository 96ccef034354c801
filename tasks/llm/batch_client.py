"""Asking through the Batch API: everything uploaded at once, answered within a day, at half price.

What is submitted stays in the ledger until its answers are in the store, so that a run that is
killed, or started on another day, collects what an earlier one has paid for instead of asking
again.
"""

import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from prefect.logging import get_logger

from models.config import LLM
from models.credentials import masked
from models.errors import BadInput
from models.llm.completion import parsed, printable, usage_of
from models.llm.failures import Failure
from models.llm.response_checks import judge
from tasks.llm.answer_run import ATTEMPTS, AnswerRun
from tasks.llm.answer_store import Answer
from tasks.llm.batch_ledger import MARK, Submission, open_submissions, prepare
from tasks.llm.endpoint import endpoint, explain, failure, request_body

if TYPE_CHECKING:
    from openai.types import Batch

    from tasks.llm.http_client import Api

MOST_REQUESTS = 50_000
MOST_BYTES = 100 * 2**20
"""Of one batch; the API's own limits are 50,000 requests and 200 MB."""

_LATEST = 1 << 33
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

    from tasks.llm.http_client import one_at_a_time

    llm = run.config.llm
    deadline = time.monotonic() + llm.batch_wait_hours * 3600
    try:
        with one_at_a_time(llm, run.key) as api:
            for attempt in range(ATTEMPTS):
                submissions = _submit(api, run, attempt)
                for submission in submissions:
                    batch = _ended(api, submission, llm, deadline)
                    _charge(run, submission, _collect(api, run, submission, batch))
                if run.refused or not submissions or not run.store.unanswered():
                    break
    except openai.APIStatusError as error:
        refusal = failure(error.status_code, error.response.content, run.key)
        raise BadInput(explain(refusal, llm)) from None
    except openai.APIConnectionError:
        raise BadInput(
            f"profiles.llm.base_url: {endpoint(llm)} cannot be reached. Check the network and run "
            "again: batches go on without this run, and the next one collects them"
        ) from None
    except BadInput:
        raise
    except (openai.OpenAIError, ValueError, RecursionError):
        raise BadInput(_no_batch_api(llm)) from None
    run.settled |= run.missing.keys()
    if run.refused:
        raise BadInput(run.refused)


def _no_batch_api(config: LLM) -> str:
    return (
        f"profiles.llm.base_url: {endpoint(config)} does not answer as a Batch API does. Set "
        "profiles.provider to openai, or correct the address"
    )


def _submit(api: "Api", run: AnswerRun, attempt: int) -> list[Submission]:
    """Submit what no open batch has; returns the open batches that this run waits for."""
    url, budget = endpoint(run.config.llm), run.budget
    wanted = {question.key for question in run.questions()}
    submissions = []
    for submission in open_submissions(url):
        if not _exists(api, submission):
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
        _create(api, submission, run.config.llm)
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
    for question in run.questions():
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


def _exists(api: "Api", submission: Submission) -> bool:
    """True if a submission's batch was created, of which it then has the id.

    A run killed while it created a batch does not know the batch's id, but the batch, if there
    is one, has ours.
    """

    async def found() -> str | None:
        async for batch in api.client.batches.list(limit=100):
            if (batch.metadata or {}).get(MARK) == submission.name:
                return batch.id
        return None

    if submission.batch_id is None and (batch_id := api.wait(found())):
        submission.created(batch_id)
    return submission.batch_id is not None


def _create(api: "Api", submission: Submission, config: LLM) -> None:
    """Upload and create, without the client's retries: they might create the batch twice."""
    import openai

    content = (submission.requests.name, submission.requests.read_bytes())
    try:
        file = api.wait(api.client.files.create(file=content, purpose="batch"))
        batch = api.wait(
            api.client.with_options(max_retries=0).batches.create(
                input_file_id=_id_of(file, config),
                endpoint=_PATH,
                completion_window="24h",
                metadata={MARK: submission.name},
            )
        )
    except openai.APIStatusError as error:
        if error.status_code < 500:
            submission.close()
        raise
    submission.created(_id_of(batch, config))


def _id_of(answer: Any, config: LLM) -> str:
    """Return the id of what was created; the client trusts what it parses, if it parses at all."""
    found = getattr(answer, "id", None)
    if not isinstance(found, str):
        raise BadInput(_no_batch_api(config))
    return found


def _ended(api: "Api", submission: Submission, config: LLM, deadline: float) -> "Batch":
    """Wait until a batch has ended, well or not."""
    import openai

    assert submission.batch_id is not None
    while True:
        try:
            batch = api.wait(api.client.batches.retrieve(submission.batch_id))
            _id_of(batch, config)
        except openai.NotFoundError:
            submission.close()
            raise BadInput(
                f"profiles.llm: {submission.endpoint} no longer knows batch "
                f"{submission.batch_id}. Run again to submit its questions anew"
            ) from None
        if str(batch.status) in _ENDED:
            return cast("Batch", batch)
        if time.monotonic() + config.batch_poll_seconds > deadline:
            done = batch.request_counts.completed if batch.request_counts else 0
            raise BadInput(
                f"profiles: batch {batch.id} is {batch.status} with {done} of "
                f"{len(submission.keys)} answers after profiles.llm.batch_wait_hours of "
                f"{config.batch_wait_hours:g}. Run again later: the batch goes on, and the next "
                "run collects it"
            )
        time.sleep(config.batch_poll_seconds)


def _collect(api: "Api", run: AnswerRun, submission: Submission, batch: "Batch") -> list[Answer]:
    """Put a batch's answers into the store, then close it; returns the new ones, usable or not.

    A run killed in between collects the same answers again: those that the store has are skipped.
    """
    times = (batch.completed_at, batch.expired_at, batch.cancelled_at, batch.created_at)
    ended = next((at for at in times if isinstance(at, int) and 0 < at < _LATEST), 0)
    seconds = ended - batch.created_at if ended and isinstance(batch.created_at, int) else 0
    # The endpoint counts whole seconds: our id tells apart batches that ended in the same one.
    mark = timedelta(microseconds=int(submission.name[:8], 16) % 1_000_000)
    finished_at = datetime.fromtimestamp(ended, UTC) + mark
    answers, open_keys = list[Answer](), set(submission.keys)
    for key, completion, refusal in _rows(api, run, batch):
        if key not in open_keys:
            continue
        open_keys.remove(key)
        text, reason = (None, None) if refusal else judge(completion, run.config)
        problem = refusal or (Failure(reason) if reason else None)
        run.note(key, problem, final=refusal is not None and refusal.scope in ("prompt", "length"))
        if completion is not None and not run.store.has(key, finished_at):
            answers.append(Answer(text, *usage_of(completion), float(seconds), finished_at))
            run.keep(key, answers[-1])
    run.missing |= dict.fromkeys(open_keys, f"batch {batch.status}")
    submission.close()
    if batch.status == "failed":
        faults = batch.errors.data if batch.errors and batch.errors.data else []
        said = "; ".join(str(fault.message) for fault in faults[:3]) or "no reason given"
        raise BadInput(
            f"profiles.llm: {submission.endpoint} refused batch {batch.id}: "
            f"{printable(masked(said, run.key))[:300]}. Correct profiles.llm or the prompt"
        )
    return answers


def _rows(api: "Api", run: AnswerRun, batch: "Batch") -> Iterator[tuple[str, Any, Failure | None]]:
    """Key, completion (None if there is none) and problem of each line of output."""
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        # Not splitlines, which also cuts where a text has a line separator of Unicode.
        for line in api.wait(api.client.files.content(file_id)).content.split(b"\n"):
            row = parsed(line)
            if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
                continue
            response = row.get("response")
            response = response if isinstance(response, dict) else {}
            status, body = response.get("status_code"), response.get("body")
            if status == 200 and body is not None:
                yield row["custom_id"], body, None
            elif isinstance(status, int) and status >= 400:
                content = json.dumps(body).encode()
                yield row["custom_id"], None, failure(status, content, run.key)
            else:
                error = row.get("error")
                code = error.get("code") if isinstance(error, dict) else None
                yield row["custom_id"], None, Failure(f"batch: {code or 'no answer'}", "passing")
