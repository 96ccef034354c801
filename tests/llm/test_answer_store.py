"""The answer store: nothing is paid twice, nothing paid is lost, and the bill says so."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pyarrow as pa
import pytest
from werkzeug import Response

from models.schemas import INTERACTIONS, ITEMS
from tasks.config.pipeline_file import PROJECT_ROOT
from tasks.profiles.outputs import Profiled
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support.fake_llm import TEMPLATE, answer, config, data, run, slow, texts

pytest_plugins = ("tests.support.fake_llm",)
pytestmark = pytest.mark.usefixtures("data_dir")


def test_a_second_run_asks_nothing_and_shows_the_answers_as_cached(llm, monkeypatch):
    first = run(config(llm), "Heat", "Fargo")
    monkeypatch.delenv("LLMKT_TEST_KEY")
    second = run(config(llm, max_missing=0.5, concurrency=3), "Heat", "Fargo")
    assert len(llm.requests) == 2
    assert second.profiles == first.profiles
    calls = read_parquet(second.calls)
    assert calls["cached"].to_pylist() == [True, True]
    assert calls["cost_usd"].to_pylist() == [0.0, 0.0]
    assert calls["prompt_tokens"].to_pylist() == [10, 10]
    assert (second.answers_paid, second.answers_cached, second.cost_usd) == (0, 2, 0.0)


def test_only_what_decides_an_answer_makes_it_another_question(llm):
    run(config(llm), "Heat")
    run(config(llm, concurrency=2, max_retries=1, timeout_seconds=9), "Heat")
    assert len(llm.requests) == 1
    for number, change in enumerate(
        ({"model": "other"}, {"temperature": 0.5}, {"seed": None}, {"max_tokens": 50})
    ):
        run(config(llm, **change), "Heat")
        assert len(llm.requests) == number + 2
    assert "seed" not in llm.requests[3]


def test_equal_prompts_of_two_users_are_asked_once(llm):
    result = run(config(llm), "Heat", "Heat", "Fargo")
    assert llm.titles() == {"Heat": 1, "Fargo": 1}
    assert texts(result)["user-0"] == texts(result)["user-1"]
    assert result.answers_paid == 2


def test_two_runs_at_once_pay_once(llm):
    llm.default = slow(0.02)
    titles = [f"Film {n}" for n in range(20)]
    handles = data(*titles)
    results: list[Profiled] = []
    runs = [
        threading.Thread(
            target=lambda: results.append(profiles.fn(config(llm), TEMPLATE, *handles))
        )
        for _ in range(2)
    ]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(llm.requests) == 20
    assert sorted(result.answers_paid for result in results) == [0, 20]


def test_new_interactions_of_others_ask_nobody_else_again(llm):
    """With the shipped prompt, which may tell likes from dislikes by everybody's mean."""
    template = (PROJECT_ROOT / "prompts" / "user-movies.j2").read_text(encoding="utf-8")
    films = [(f"i{n}", f"Film {n}", 1980 + n, ["Drama"]) for n in range(8)]
    items = write_parquet("items", pa.table(list(zip(*films, strict=True)), ITEMS))
    ratings = {"ann": (5, 1, 4), "bob": (2, 2, 5), "cem": (3, 3, 3)}
    rows = [
        (user, f"i{n}", float(rating), n)
        for user, of_user in ratings.items()
        for n, rating in enumerate(of_user)
    ]
    new = [("bob", "i7", 4.0, 9), ("dan", "i6", 4.0, 9), ("dan", "i7", 1.0, 8)]

    def profiled(rows) -> tuple[Profiled, list[str]]:
        train = write_parquet("split", pa.table(list(zip(*rows, strict=True)), INTERACTIONS))
        before = len(llm.requests)
        done = profiles.fn(config(llm), template, train, items)
        return done, [request["messages"][-1]["content"] for request in llm.requests[before:]]

    first, asked = profiled(rows)
    assert len(asked) == 3
    second, asked_then = profiled([*rows, *new])
    assert len(asked_then) == 2
    assert all("Film 7" in prompt for prompt in asked_then)
    assert (second.answers_paid, second.answers_cached) == (2, 2)
    before, after = (read_parquet(profiled.profiles).to_pylist() for profiled in (first, second))
    same = {row["user_id"]: row for row in after}
    assert [same[row["user_id"]] == row for row in before] == [True, False, True]


RUN_AND_BE_KILLED = """
import sys
from models.config import Profiles
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import Handle

config, template, train, items = sys.argv[1:]
profiles.fn(
    Profiles.model_validate_json(config),
    template,
    Handle.model_validate_json(train),
    Handle.model_validate_json(items),
)
"""


def test_a_killed_run_loses_only_what_was_in_flight(llm):
    titles = [f"Film {n}" for n in range(10)]
    handles = data(*titles)
    settings = config(llm, concurrency=2, timeout_seconds=60)
    stuck, release = threading.Semaphore(0), threading.Event()

    def hang(request: dict) -> Response:
        stuck.release()
        release.wait(30)
        return answer(request)

    llm.script = {title: [hang] for title in titles[6:]}
    arguments = [settings.model_dump_json(), TEMPLATE, *(h.model_dump_json() for h in handles)]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_BE_KILLED, *arguments], cwd=PROJECT_ROOT, env=os.environ
    )
    for _ in range(2):
        assert stuck.acquire(timeout=600)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    release.set()
    assert len(llm.requests) == 8

    llm.script = {}
    rerun = profiles.fn(settings, TEMPLATE, *handles)
    assert llm.titles() == Counter(titles[:6] + titles[6:8] * 2 + titles[8:])
    # What the killed run paid shows up as paid once, and once only.
    assert (rerun.answers_paid, rerun.answers_cached) == (10, 0)
    again = profiles.fn(settings, TEMPLATE, *handles)
    assert (again.answers_paid, again.answers_cached) == (0, 10)
