"""The Batch API: matched by key, picked up after a kill or on another day, never asked twice."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from werkzeug import Response

from models.errors import BadInput
from tasks.llm import batch_client
from tasks.storage.artifacts import PROJECT_ROOT, read_parquet
from tests.support.fake_batch_api import KEY, answered, body_of, config, title
from tests.support.fake_llm import TEMPLATE, reasons, run, texts

pytest_plugins = ("tests.support.fake_batch_api",)
pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

TITLES = ("Heat", "Fargo", "Alien")
PROFILES = {f"user-{n}": f'A profile of one who Likes "{title}".' for n, title in enumerate(TITLES)}


def left(data_dir: Path) -> list[str]:
    return sorted(file.suffix for file in (data_dir / "batches").glob("*"))


def test_every_user_gets_an_answer_by_key_and_the_bill_is_kept(batches, data_dir):
    batches.polls = 3
    result = run(config(batches), *TITLES)
    assert texts(result) == PROFILES
    assert (result.source, result.answers_paid, result.missing) == ("openai-batch", 3, 0)
    calls = read_parquet(result.calls)
    assert calls["provider"].to_pylist() == ["openai-batch"] * 3
    assert calls["prompt_tokens"].to_pylist() == [10, 10, 10]
    assert calls["latency_seconds"].to_pylist() == [100.0] * 3
    keys = read_parquet(result.profiles)["profile_key"].to_pylist()
    (uploaded,) = (text for name, text in batches.files.items() if name.startswith("file-"))
    rows = [json.loads(line) for line in uploaded.splitlines()]
    assert [row["custom_id"] for row in rows] == keys
    assert rows[0]["body"]["seed"] == 7
    assert "user-0" not in uploaded
    assert KEY not in uploaded
    assert batches.looks["batch_0"] == 3
    assert left(data_dir) == []


def test_what_is_known_is_not_submitted_again(batches):
    run(config(batches), *TITLES)
    result = run(config(batches), *TITLES, "Brazil")
    assert batches.submitted() == dict.fromkeys((*TITLES, "Brazil"), 1)
    assert (result.answers_paid, result.answers_cached) == (1, 3)
    run(config(batches), *TITLES)
    assert len(batches.batches) == 2


def test_many_questions_make_several_batches(batches, monkeypatch):
    monkeypatch.setattr(batch_client, "MOST_REQUESTS", 2)
    assert texts(run(config(batches), *TITLES)) == PROFILES
    assert len(batches.batches) == 2
    monkeypatch.setattr(batch_client, "MOST_BYTES", 10)
    run(config(batches, seed=8), *TITLES)
    assert len(batches.batches) == 5


TROUBLE = {
    "HTTP 500": lambda row: answered(row, status=500),
    "batch: batch_expired": lambda row: {
        "custom_id": row["custom_id"],
        "response": None,
        "error": {"code": "batch_expired", "message": "too late"},
    },
    "batch completed": lambda _: None,
    "empty": lambda row: answered(row, body_of("  ")),
    "truncated at max_tokens": lambda row: answered(row, body_of("half a", "length")),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_bad_rows_are_asked_again_and_only_they(batches, trouble):
    batches.rule = lambda row, n: trouble(row) if n == 0 and title(row) == "Heat" else answered(row)
    assert texts(run(config(batches), *TITLES)) == PROFILES
    assert batches.submitted() == {"Heat": 2, "Fargo": 1, "Alien": 1}
    assert [row["body"]["seed"] for row in batches.rows("batch_1")] == [8]


@pytest.mark.parametrize(("reason", "trouble"), TROUBLE.items(), ids=TROUBLE)
def test_lasting_trouble_leaves_a_profile_missing_with_its_reason(batches, reason, trouble):
    batches.rule = lambda row, _: trouble(row) if title(row) == "Heat" else answered(row)
    result = run(config(batches, max_missing=0.5), *TITLES)
    assert reasons(result) == [reason, None, None]
    assert batches.submitted() == {"Heat": 3, "Fargo": 1, "Alien": 1}
    paid = sum(read_parquet(result.calls)["prompt_tokens"].to_pylist())
    assert paid == (50 if reason in ("empty", "truncated at max_tokens") else 20)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_batch_that_did_not_finish_gives_what_it_has(batches, status):
    def only_once(row, number):
        batches.status = "completed" if number else status
        return answered(row) if number or title(row) == "Fargo" else None

    batches.status, batches.rule = status, only_once
    assert texts(run(config(batches), *TITLES)) == PROFILES
    assert batches.submitted() == {"Heat": 2, "Fargo": 1, "Alien": 2}


def test_a_batch_that_failed_is_refused_with_its_reason(batches, data_dir):
    batches.status, batches.errors = "failed", ["no such model m", "line 2 is bad"]
    with pytest.raises(BadInput, match="refused batch batch_0: no such model m; line 2 is bad"):
        run(config(batches), *TITLES)
    assert left(data_dir) == []
    batches.status, batches.errors = "completed", []
    assert texts(run(config(batches), *TITLES)) == PROFILES


def test_a_run_that_waits_no_longer_leaves_the_batch_to_the_next(batches):
    batches.polls = 10**9
    with pytest.raises(
        BadInput, match=r"batch_0 is in_progress with 0 of 3 .* next run collects it"
    ):
        run(config(batches, batch_wait_hours=0), *TITLES)
    batches.polls = 1
    assert texts(run(config(batches), *TITLES, "Brazil"))["user-3"].endswith('"Brazil".')
    assert batches.submitted() == dict.fromkeys((*TITLES, "Brazil"), 1)


def test_a_lost_batch_is_named_and_its_questions_asked_anew(batches):
    batches.polls = 10**9
    with pytest.raises(BadInput, match="in_progress"):
        run(config(batches, batch_wait_hours=0), *TITLES)
    batches.polls, batches.lost = 1, {"batch_0"}
    with pytest.raises(BadInput, match=r"no longer knows batch batch_0\. Run again"):
        run(config(batches), *TITLES)
    assert texts(run(config(batches), *TITLES)) == PROFILES


def test_a_refused_key_stops_without_showing_it(batches, data_dir, monkeypatch):
    monkeypatch.setenv("LLMKT_TEST_KEY", "sk-wrong")
    with pytest.raises(BadInput, match="answered 401") as error:
        run(config(batches), *TITLES)
    assert "sk-wrong" not in str(error.value)
    assert left(data_dir) == []


SCRIPT = """
import sys
from prefect.logging import disable_run_logger
from tests.support.fake_llm import data
from models.config import Profiles
import tasks.profiles.profiles_task
with disable_run_logger():
    tasks.profiles.profiles_task.profiles.fn(
        Profiles.model_validate_json(sys.argv[1]), sys.argv[2], *data(*sys.argv[3:])
    )
"""


def killed_when(settings, is_time, titles=TITLES) -> None:
    """Run the stage in a process of its own and kill it, with no chance to clean up."""
    command = [sys.executable, "-c", SCRIPT, settings.model_dump_json(), TEMPLATE, *titles]
    with subprocess.Popen(command, env=os.environ, cwd=PROJECT_ROOT) as process:
        deadline = time.monotonic() + 600
        while not is_time():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()


@pytest.mark.parametrize(
    ("moment", "known"),
    [
        ("POST /files", 0),  # uploaded, not yet created
        ("POST /batches", 1),  # created, which the run has not heard
        ("GET /batches/", 1),  # waiting
        ("GET /files/", 1),  # collecting
    ],
)
def test_a_killed_run_s_batch_is_picked_up(batches, data_dir, moment, known):
    batches.stuck_at = moment
    killed_when(config(batches, timeout_seconds=60), batches.reached.is_set)
    batches.stuck_at = "nothing"
    batches.release.set()
    assert left(data_dir) == [".json", ".jsonl"]
    assert len(batches.batches) == known
    result = run(config(batches), *TITLES)
    assert texts(result) == PROFILES
    assert batches.submitted() == dict.fromkeys(TITLES, 1)
    assert (result.answers_paid, len(batches.batches)) == (3, 1)
    assert read_parquet(result.calls)["prompt_tokens"].to_pylist() == [10] * 3
    assert ("GET /batches" in batches.log) == moment.startswith("POST")
    assert left(data_dir) == []
    again = run(config(batches), *TITLES)
    assert (again.answers_paid, again.answers_cached, len(batches.batches)) == (0, 3, 1)


def test_a_kill_while_collecting_bills_nothing_twice(batches, data_dir, monkeypatch):
    answer, calls = batch_client.Answer, []

    def killed_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(batch_client, "Answer", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(config(batches), *TITLES)
    result = run(config(batches), *TITLES)
    assert texts(result) == PROFILES
    assert len(calls) == 4
    assert read_parquet(result.calls)["prompt_tokens"].to_pylist() == [10] * 3
    assert batches.submitted() == dict.fromkeys(TITLES, 1)
    assert left(data_dir) == []


def test_a_kill_after_collecting_leaves_nothing_behind(batches, data_dir, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            batch_client.Submission, "close", lambda _: (_ for _ in ()).throw(SystemExit)
        )
        with pytest.raises(SystemExit):
            run(config(batches), *TITLES)
    assert left(data_dir) == [".json", ".jsonl"]
    result = run(config(batches), *TITLES, "Brazil")
    assert read_parquet(result.calls)["prompt_tokens"].to_pylist() == [10] * 4
    assert batches.submitted() == dict.fromkeys((*TITLES, "Brazil"), 1)
    assert left(data_dir) == []


def test_a_prompt_refused_in_a_batch_is_not_asked_again(batches):
    words = {"error": {"message": "flagged as harmful", "code": "content_filter"}}
    batches.rule = lambda row, _: (
        answered(row, words, status=400) if title(row) == "Heat" else answered(row)
    )
    result = run(config(batches, 0.5), *TITLES)
    assert reasons(result) == ["refused: flagged as harmful", None, None]
    assert batches.submitted() == dict.fromkeys(TITLES, 1)


def test_a_parameter_refused_in_a_batch_ends_the_run(batches):
    words = {"error": {"message": "'seed' is not supported", "param": "seed"}}
    batches.rule = lambda row, _: answered(row, words, status=400)
    with pytest.raises(BadInput, match=r"seed.* Set profiles\.llm\.seed to null"):
        run(config(batches, 1.0), *TITLES)
    assert len(batches.batches) == 1


@pytest.mark.parametrize("odd", [b"[" * 100_000, b'{"custom_id": []}', b'"x"', b"null", b"\xff"])
def test_an_odd_line_of_results_is_passed_over(batches, monkeypatch, odd):
    content = type(batches)._content
    monkeypatch.setattr(
        type(batches),
        "_content",
        lambda self, request, name: Response(odd + b"\n" + content(self, request, name).data),
    )
    assert texts(run(config(batches), *TITLES)) == PROFILES
