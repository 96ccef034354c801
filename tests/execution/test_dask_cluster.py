"""A grid on a Dask cluster: an external scheduler and two workers, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dask
import duckdb
import pytest
import yaml
from distributed import Client
from typer.testing import CliRunner

from flows.cli.main import app
from models.config import Pipeline
from models.errors import BadInput, Unavailable
from tasks.execution import dask_cluster
from tasks.execution.dask_cluster import Environment, require_same_code
from tasks.execution.worker_pool import in_worker, worker_pool
from tasks.storage.artifacts import PROJECT_ROOT, TEMPORARY
from tests.support.toy_project import no_workers
from tests.support.toy_world import MEDIUM

ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
TRAININGS = 1 + len(ALPHAS)
"""Of one seed; the baseline is the same for all points."""
NOBODY = "tcp://127.0.0.1:9"
"""Nothing listens there."""


@dataclass
class Cluster:
    """Processes, and the data folder that they share with the flow."""

    folder: Path
    data: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return json.loads(self.file.read_text())["address"]

    def start(self, name: str, *command: str) -> None:
        """Start `dask …`, as a user would in the project's folder."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, "--scheduler-file", str(self.file)],
                cwd=PROJECT_ROOT,
                env={**os.environ, "LLMKT_DATA_DIR": str(self.data)},
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


@contextmanager
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address, set_as_default=False, timeout=600) as connected:
        yield connected


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Two workers without a nanny, so that one that is killed stays away."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), tmp_path_factory.mktemp("shared"))
    try:
        made.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        for name in ("one", "other"):
            alone = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
            made.start(name, "worker", *alone)
        deadline = time.monotonic() + 600
        while not made.file.exists():
            assert time.monotonic() < deadline, made.log("scheduler")
            time.sleep(0.05)
        with client(made) as connected:
            connected.wait_for_workers(2, timeout=600)
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Six points on the toy data set."""
    folder = tmp_path_factory.mktemp("toy")
    base = {
        "dataset": MEDIUM.write(folder),
        "embeddings": {"precision": "float32"},  # bfloat16 fails where AVX-512 is switched off
        "targets": {"reduction": "pca"},
        "models": {"BPR": {"hyperparameters": {"embedding_size": 8, "train_batch_size": 64}}},
        "training": {"epochs": 6, "patience": 6, "seeds": [1, 2]},
        "evaluation": {"k": [5, 10], "metrics": ["ndcg", "recall"]},
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({"base": base, "grid": {"transfer.alpha": ALPHAS}}))
    return path


def llmkt(data: Path, grid: Path, *settings: str, workers: int = 2):
    """`llmkt experiment`, `workers` trainings at the same time."""
    overrides = [part for setting in settings for part in ("--set", setting)]
    arguments = ["experiment", str(grid), "--workers", str(workers), "--json", *overrides]
    return CliRunner().invoke(app, [*arguments, "--data-dir", str(data)])


def ran(data: Path, grid: Path, *settings: str, workers: int = 2) -> dict:
    done = llmkt(data, grid, *settings, workers=workers)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refused(data: Path, grid: Path, *settings: str) -> str:
    """The sentence of a command that ends with exit code 2."""
    done = llmkt(data, grid, *settings)
    assert done.exit_code == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def metrics(data: Path, seed: int) -> list[tuple]:
    """All figures of a seed's runs, and how each training went, to the last bit."""
    with duckdb.connect(str(data / "results.duckdb"), read_only=True) as connection:
        return connection.execute(
            "SELECT arm, alpha, best_epoch, epochs_run, split, metric, k, value FROM runs "
            "JOIN metrics USING (run_id) WHERE seed = ? ORDER BY ALL",
            [seed],
        ).fetchall()


def names(data: Path, stage: str) -> set[str]:
    """Artifacts of a stage that are whole: each is called by its content's digest."""
    found = (data / "artifacts" / stage).glob("*")
    return {path.name for path in found if not path.name.startswith(TEMPORARY)}


@pytest.fixture(autouse=True)
def environment(monkeypatch, prefect_server):  # noqa: ARG001 - flows need it
    """Let `--data-dir` change the environment of one test alone."""
    monkeypatch.setenv("LLMKT_DATA_DIR", "")


@pytest.fixture(scope="module")
def local(tmp_path_factory, grid, prefect_server) -> Path:  # noqa: ARG001
    """The data folder of a run in this process, both seeds."""
    data = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMKT_DATA_DIR", "")
        with no_workers():
            assert ran(data, grid, workers=1)["ran"] == 2 * TRAININGS
    return data


def on(cluster: Cluster) -> tuple[str, ...]:
    return "runner=dask", f"dask.address={cluster.address}", "dask.timeout_seconds=120"


def test_six_points_on_two_workers_end_as_they_do_locally(cluster, grid, local):
    summary = ran(cluster.data, grid, *on(cluster), "training.seeds=[1]")
    assert (summary["ran"], summary["failed"], len(summary["points"])) == (
        TRAININGS,
        0,
        len(ALPHAS),
    )
    found = metrics(cluster.data, 1)
    assert len({row[:2] for row in found}) == TRAININGS
    assert found == metrics(local, 1)
    assert names(cluster.data, "weights") < names(local, "weights")
    assert names(cluster.data, "embeddings") == names(local, "embeddings")
    with client(cluster) as connected:
        imported = connected.run(lambda: {"recbole", "sentence_transformers"} <= {*sys.modules})
    assert [*imported.values()] == [True, True]


def kill_one_at_work(cluster: Cluster, over: threading.Event) -> None:
    """Kill a worker while it trains, once a training has ended.

    It is stopped first: what the scheduler then says it is at work on, it cannot end any more.
    """
    ended = len(names(cluster.data, "weights"))
    with client(cluster) as connected:
        pids = connected.run(os.getpid)

        def training() -> list[str]:
            tasks = connected.processing().items()
            return [name for name, keys in tasks if any(key.startswith("train") for key in keys)]

        def wait_for(happened: Callable[[], bool]) -> bool:
            while not over.is_set() and not happened():
                time.sleep(0.01)
            return not over.is_set()

        if not wait_for(lambda: len(names(cluster.data, "weights")) > ended and any(training())):
            return
        victim = (training() or [*pids])[0]
        os.kill(pids[victim], signal.SIGSTOP)
        at_work = wait_for(lambda: victim in training())
        os.kill(pids[victim], signal.SIGKILL if at_work else signal.SIGCONT)


def test_a_killed_worker_costs_no_training(cluster, grid, local):
    over, before = threading.Event(), names(cluster.data, "weights")
    killer = threading.Thread(target=kill_one_at_work, args=(cluster, over))
    killer.start()
    try:
        summary = ran(cluster.data, grid, *on(cluster), "training.seeds=[2]")
    finally:
        over.set()
        killer.join()
    gone = [process.poll() for process in cluster.processes.values()]
    assert gone.count(-signal.SIGKILL) == 1
    assert (summary["ran"], summary["cached"], summary["failed"]) == (TRAININGS, 0, 0)
    assert metrics(cluster.data, 2) == metrics(local, 2)
    made = names(cluster.data, "weights") - before
    assert len(made) == TRAININGS
    assert made < names(local, "weights")


def test_what_is_cached_needs_no_cluster(grid, local):
    summary = ran(local, grid, "runner=dask", f"dask.address={NOBODY}")
    assert (summary["ran"], summary["cached"]) == (0, 2 * TRAININGS)


def test_an_unreachable_scheduler_is_told_before_anybody_is_asked(tmp_path, grid, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    asks = ("profiles.provider=openai", "profiles.llm.base_url=http://127.0.0.1:9/v1")
    there = ("runner=dask", f"dask.address={NOBODY}", "dask.timeout_seconds=0.5")
    said = refused(tmp_path, grid, *there, *asks)  # not that the LLM's endpoint is silent, too
    assert f"Error: dask.address: no Dask scheduler answers at {NOBODY} within 0.5 s" in said


def test_a_worker_with_another_data_folder_is_refused(cluster, tmp_path, grid):
    said = refused(tmp_path, grid, *on(cluster))
    assert f"its LLMKT_DATA_DIR is {cluster.data}, the flow's is {tmp_path}" in said
    assert not (tmp_path / "artifacts" / "profiles").exists()
    assert not [*(tmp_path / "artifacts" / "probe").iterdir()]


def test_other_code_is_refused_with_what_differs():
    here = Environment("desk", "/data", {"code": "abc", "torch": "2.13.0"}, {})
    require_same_code(here, replace(here, host="other"))
    other = replace(here, host="other", code={"code": "abc", "torch": "2.12.0"})
    with pytest.raises(BadInput, match=r"on other \(torch 2.12.0 instead of 2.13.0\)"):
        require_same_code(here, other)


def pipeline(**dask_settings) -> Pipeline:
    settings = {"runner": "dask", "dask": dask_settings, "training": {"workers": 1}}
    return Pipeline.model_validate({"experiment": "e", "models": {"Pop": {}}} | settings)


@pytest.mark.usefixtures("data_dir")
def test_a_cluster_of_ones_own_ends_with_the_run():
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), worker_pool(pipeline()):
        pid = in_worker(os.getpid)
        assert pid != os.getpid()
        with pytest.raises(ZeroDivisionError):
            in_worker(divmod, 1, 0)
        with pytest.raises(BadInput, match="1 workers in turn died of this work"):
            in_worker(os._exit, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert in_worker(os.getpid) == os.getpid()


def test_a_lost_scheduler_is_told(cluster, monkeypatch):
    """The last test here: the cluster is gone after it."""
    monkeypatch.setenv("LLMKT_DATA_DIR", str(cluster.data))
    with worker_pool(pipeline(address=cluster.address, timeout_seconds=120)):
        assert in_worker(os.getpid) != os.getpid()
        monkeypatch.setattr(dask_cluster, "_SECONDS_BETWEEN_LOOKS", 0.2)
        cluster.processes["scheduler"].kill()
        with pytest.raises(Unavailable, match="the scheduler was lost"):
            in_worker(time.sleep, 60)


def test_a_runner_is_no_axis_and_no_identity(grid):
    assert pipeline().digest() == pipeline(address=NOBODY).digest()
    done = llmkt(grid.parent, grid, "grid.runner=[local, dask]")
    assert done.exit_code == 2
    assert "runner is the same for all points" in done.stderr
    with pytest.raises(ValueError, match="write it as the scheduler prints it"):
        pipeline(address="10.0.0.5")
