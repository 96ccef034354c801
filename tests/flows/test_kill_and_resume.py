"""The command killed at random moments and run again ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from tasks.storage.artifacts import PROJECT_ROOT, TEMPORARY
from tests.support.fake_llm import KEY, TEMPLATE, FakeLLM, slow
from tests.support.toy_project import World
from tests.support.toy_world import MEDIUM

pytest_plugins = ("tests.support.fake_llm",)

SEED, CONCURRENCY = 5, 4
RUNS = 2 * 2 * 2
CONFIG = """
experiment: crash
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
profiles:
  provider: openai
  prompt: {folder}/prompt.j2
  llm: {{base_url: "{url}", concurrency: {concurrency}}}
embeddings: {{provider: hashing}}
targets: {{reduction: pca}}
models:
  BPR: {{hyperparameters: {{embedding_size: 8, train_batch_size: 64}}}}
  MultiVAE: {{hyperparameters: {{latent_dimension: 16, train_batch_size: 16}}}}
training: {{epochs: 6, patience: 6, seeds: [1, 2], workers: 1}}
evaluation: {{k: [5, 10], primary: ndcg@10}}
"""


@dataclass
class Crashing(World):
    """A world whose LLM takes its time, and the command to be killed."""

    llm: FakeLLM = field(kw_only=True)

    def start(self, data: Path) -> subprocess.Popen[bytes]:
        """Start the command in a process group of its own, as a shell would."""
        known = {"LLMKT_DATA_DIR": str(data), "PREFECT_API_URL": self.api, "OPENAI_API_KEY": KEY}
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(self.config), "--json"],
            cwd=PROJECT_ROOT,
            env={**os.environ, **known},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def finished(process: subprocess.Popen[bytes]) -> dict:
    """The summary of a run that succeeds."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()
    return json.loads(out.decode().splitlines()[-1])


def kill(process: subprocess.Popen[bytes]) -> str:
    """Kill it and its workers; returns what it had written to standard error."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[1].decode()


@pytest.fixture(scope="module")
def crashing(tmp_path_factory, prefect_server, server) -> Crashing:
    folder = tmp_path_factory.mktemp("crash")
    MEDIUM.write(folder)
    (folder / "prompt.j2").write_text(TEMPLATE)
    server.clear()
    llm = FakeLLM(server, default=slow(0.1))
    server.expect_request("/v1/chat/completions").respond_with_handler(llm.handle)
    config = folder / "crash.yaml"
    config.write_text(CONFIG.format(folder=folder, url=llm.url, concurrency=CONCURRENCY))
    return Crashing(folder, folder / "whole", config, prefect_server, llm=llm)


@dataclass
class Uninterrupted:
    """What the run that nobody killed left."""

    data: Path
    summary: dict
    requests: int


@pytest.fixture(scope="module")
def whole(crashing) -> Uninterrupted:
    summary = crashing.run(OPENAI_API_KEY=KEY)
    return Uninterrupted(crashing.data, summary, len(crashing.llm.requests))


def is_bill(path: Path) -> bool:
    """Whether a file holds `LLM_CALLS`, with the time of each."""
    return path.suffix == ".parquet" and "latency_seconds" in pq.read_schema(path).names


def bill(data: Path) -> pa.Table:
    """What was asked, without the times."""
    [path] = [path for path in (data / "artifacts" / "profiles").glob("[!.]*") if is_bill(path)]
    return pq.read_table(path).drop_columns(["latency_seconds", "finished_at", "cached"])


def artifacts(data: Path) -> set[str]:
    """All artifacts by name, which is their content's digest; but for what records times."""
    return {
        path.relative_to(data).as_posix()
        for path in (data / "artifacts").rglob("*")
        if path.is_file()
        and not path.name.startswith(TEMPORARY)  # a kill leaves some; they count for nothing
        and path.parent.name != "report"
        and not is_bill(path)
    }


def results(data: Path) -> int:
    """How many stages have stored a result."""
    return sum(not path.name.startswith(".") for path in (data / "cache").glob("*"))


def comparison(summary: dict) -> list[dict]:
    assert summary["comparison"]
    return summary["comparison"]


def rows_of_runs(data: Path) -> dict[str, list[tuple]]:
    """Per table the number of rows of each run, and of runs that do not exist."""
    with duckdb.connect(str(data / "results.duckdb"), read_only=True) as connection:
        return {
            table: connection.sql(
                f"SELECT run_id, count({table}.run_id), count(runs.run_id) > 0 "
                f"FROM runs FULL JOIN {table} USING (run_id) GROUP BY run_id ORDER BY run_id"
            ).fetchall()
            for table in ("metrics", "user_metrics", "epochs")
        }


def require_complete_database(data: Path, whole: Path) -> None:
    """Every run has its metrics, its users and its epochs; there are no rows of others."""
    found = rows_of_runs(data)
    assert found == rows_of_runs(whole)
    for table, rows in found.items():
        assert len(rows) == RUNS, table
        assert all(count > 0 and is_run for _, count, is_run in rows), table
    assert {count for _, count, _ in found["user_metrics"]} == {60 * 6 * 2}


def require_no_lock(data: Path) -> None:
    for path in (data / "locks").glob("*.lock"):
        with FileLock(path, timeout=0):
            pass


def require_as_if_nothing_happened(data: Path, summary: dict, whole: Uninterrupted) -> None:
    assert artifacts(data) == artifacts(whole.data)
    assert bill(data).equals(bill(whole.data))
    assert comparison(summary) == comparison(whole.summary)
    require_complete_database(data, whole.data)
    require_no_lock(data)
    assert not list((data / "checkpoints").glob("*.pt"))


STARTING, ASKING = "the program starts", "the LLM is asked"
ONCE_EACH = (ASKING, 0.6)
MANY = (STARTING, 0.1, ASKING, ASKING, *(share / 10 for share in range(4, 10)))
"""When to kill: at a moment's name, or once that share of the stages has stored its result."""


@pytest.mark.parametrize("moments", [ONCE_EACH, pytest.param(MANY, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(
    crashing, whole, tmp_path, moments
):
    """Each kill comes a random moment after a sign of progress, so that none is wasted."""
    data, llm, stages = tmp_path / "data", crashing.llm, results(whole.data)
    rng, asked_before = random.Random(SEED), len(llm.requests)
    in_flight = 0
    for moment in moments:
        process, began = crashing.start(data), time.monotonic()
        asked, stored = len(llm.requests), results(data)

        def reached(moment=moment, asked=asked, stored=stored) -> bool:
            if moment == ASKING:
                return len(llm.requests) > asked + CONCURRENCY
            return moment == STARTING or results(data) >= max(stored + 1, int(stages * moment))

        while not reached() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.5, 3.0) if moment == STARTING else rng.uniform(0.0, 0.15))
        ended, said = process.poll(), kill(process)
        assert ended is None, f"it ended before the kill at {moment}: {said}"
        in_flight += CONCURRENCY if len(llm.requests) > asked else 0
        print(  # noqa: T201 - shown when the test fails
            f"kill at {moment}: {time.monotonic() - began:.1f} s after its start, "
            f"{results(data)} results stored, {len(llm.requests) - asked_before} prompts sent"
        )
    summary = finished(crashing.start(data))
    require_as_if_nothing_happened(data, summary, whole)
    sent = len(llm.requests) - asked_before
    assert whole.requests <= sent <= whole.requests + in_flight


@pytest.mark.slow
def test_two_runs_at_once_end_alike_and_ask_once(crashing, whole, tmp_path):
    data, asked = tmp_path / "data", len(crashing.llm.requests)
    both = [crashing.start(data) for _ in range(2)]
    summaries = [finished(process) for process in both]
    assert len(crashing.llm.requests) - asked == whole.requests
    for summary in summaries:
        require_as_if_nothing_happened(data, summary, whole)


@pytest.mark.slow  # quick: two runs at once, and the targets' bits in another process
@pytest.mark.parametrize("apart", [False, True])
def test_the_same_configuration_data_and_seed_give_the_same_digests(crashing, tmp_path, apart):
    """In two fresh folders, in whatever process and order trainings end."""
    settings = (
        "--set=profiles.provider=offline",
        "--set=targets.reduction=umap",
        "--set=training.seeds=[1]",
    )
    text = crashing.config.read_text().replace(f"prompt: {crashing.config.parent}/prompt.j2", "")
    config = tmp_path / "offline.yaml"
    config.write_text(text)
    here = World(tmp_path, tmp_path / "here", config, crashing.api)
    there = replace(here, data=tmp_path / "there", in_workers=True)
    one = here.run(*settings)
    other = there.run(*settings, "--set=training.workers=2", apart=apart)
    assert artifacts(here.data) == artifacts(there.data)
    assert {path.split("/")[1] for path in artifacts(here.data)} >= {
        "interactions",
        "split",
        "profiles",
        "embeddings",
        "targets",
        "training",
        "weights",
    }
    assert comparison(one) == comparison(other)
