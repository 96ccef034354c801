"""A run of which everything is cached: no server, no flow run, nothing old taken for new."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_TASKS_DISABLE_CACHING,
    PREFECT_TASKS_REFRESH_CACHE,
    temporary_settings,
)

from flows.steps.preparation import Request
from flows.steps.stage_runner import CachedStages, NotCached
from flows.steps.trainings import TrainingPool
from models.config import Pipeline
from tasks.execution.cache_key import cache_key
from tasks.execution.stage import always, stage
from tasks.storage.artifacts import PROJECT_ROOT
from tasks.training import tap_points
from tests.support.toy_project import states

pytest_plugins = ("tests.support.toy_project",)

SMALL = (
    "--set=models={BPR: {hyperparameters: {embedding_size: 8, train_batch_size: 64}}, Pop: {}}",
    "--set=training.epochs=2",
    "--set=training.seeds=[1]",
)
CALLS: list[int] = []


@stage("doubling", version=1)
def doubling(number: int) -> int:
    """Twice a number."""
    CALLS.append(number)
    return 2 * number


@always("publishing")
def publishing(number: int) -> int:
    """Changes what others see."""
    return number


@pytest.fixture(scope="module")
def done(world):
    return world.run(*SMALL)


def flow_runs() -> int:
    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs())


def rows(world):
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        return [
            connection.sql(f"FROM {table} ORDER BY ALL").fetchall()
            for table in ("runs", "metrics", "contrasts", "user_metrics")
        ]


def timeless(summary):
    stages = [record | {"seconds": 0} for record in summary["stages"]]
    return summary | {"stages": stages}


def test_it_needs_neither_a_server_nor_torch_and_prints_the_same(world, done):
    before, page = rows(world), Path(done["report"]).read_bytes()
    code = (
        "import sys; from flows.cli.main import app; app(sys.argv[1:], standalone_mode=False); "
        "print({'torch', 'recbole', 'pandas', 'sklearn', 'umap'} & set(sys.modules))"
    )
    environment = os.environ | {
        "LLMKT_DATA_DIR": str(world.data),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # a flow run would end with an error
    }
    environment.pop("PREFECT_API_URL", None)
    again = subprocess.run(
        [sys.executable, "-c", code, "run", str(world.config), *SMALL, "--json"],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    *_, summary, heavy = again.stdout.splitlines()
    assert heavy == "set()"
    assert not (world.data / "prefect" / "prefect.db").exists()
    expected = [record | {"state": "cached"} for record in done["stages"]]
    assert timeless(json.loads(summary)) == timeless(done | {"stages": expected})
    assert rows(world) == before
    assert Path(done["report"]).read_bytes() == page


def test_beside_a_server_it_makes_no_flow_run_and_says_so(world, done):
    assert done
    before = flow_runs()
    told = world.llmkt("run", str(world.config), *SMALL)
    assert "Every stage was cached." in told.stdout
    assert "BPR transfer" in told.stdout
    assert flow_runs() == before


def _interactions(world, patch):  # noqa: ARG001
    file = world.folder / "toy.inter"
    header, first, *others = file.read_text().splitlines()
    file.write_text("\n".join([header, *others, first]))


def _report(world, patch):  # noqa: ARG001
    (world.data / "reports" / "toy.html").write_text("another run's")


def _evaluation(world, patch):  # noqa: ARG001
    with duckdb.connect(str(world.data / "results.duckdb")) as connection:
        connection.execute("DELETE FROM runs WHERE arm = 'transfer'")


def _targets(world, patch):  # noqa: ARG001
    for file in (world.data / "artifacts" / "targets").glob("*.parquet"):
        file.unlink()


def _version(world, patch):  # noqa: ARG001
    """As if `version=` of the report had been raised."""

    def raised(name, version, inputs):
        return cache_key(name, version + (name == "report"), inputs)

    patch.setattr("tasks.execution.stage.cache_key", raised)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (_interactions, "interactions"),
        (_report, "report"),
        (_evaluation, "evaluation"),
        (_targets, "targets"),
        (_version, "report"),
    ],
)
def test_what_changed_or_is_gone_makes_a_flow_run(world, done, monkeypatch, change, stale):
    assert done
    world.run(*SMALL)
    before = flow_runs()
    change(world, monkeypatch)
    assert states(world.run(*SMALL))[stale] == "ran"
    assert flow_runs() == before + 1
    assert set(states(world.run(*SMALL)).values()) == {"cached"}
    assert flow_runs() == before + 1


@pytest.mark.usefixtures("data_dir")
def test_only_what_is_kept_is_found():
    with pytest.raises(NotCached, match="doubling"):
        CachedStages().run(doubling, 1)
    doubling.recall(1, keep=True)
    stages = CachedStages()
    assert stages.run(doubling, 1) == 2
    assert [(record.name, record.state) for record in stages.records] == [("doubling", "cached")]
    with pytest.raises(NotCached, match="publishing"):
        CachedStages().run(publishing, 1)
    for setting in (PREFECT_TASKS_REFRESH_CACHE, PREFECT_TASKS_DISABLE_CACHING):
        with temporary_settings({setting: True}), pytest.raises(NotCached):
            CachedStages().run(doubling, 1)


@pytest.mark.usefixtures("data_dir")
def test_without_a_runner_nothing_is_trained():
    request = Request(SimpleNamespace(), {}, SimpleNamespace(name="training"))
    object.__setattr__(request.stage, "key", lambda *_: "key")
    object.__setattr__(request.stage, "cached", lambda *_: None)
    with pytest.raises(NotCached, match="training"):
        TrainingPool().start(request)


def test_what_is_kept_is_computed_once_and_a_full_disk_is_no_error(data_dir, monkeypatch):
    CALLS.clear()
    assert [doubling.recall(3, keep=True), doubling.recall(3, keep=True)] == [6, 6]
    assert CALLS == [3]
    monkeypatch.setattr("tasks.storage.prefect_results.replacing", _full)
    assert [doubling.recall(4, keep=True), doubling.recall(4, keep=True)] == [8, 8]
    assert CALLS == [3, 4, 4]
    assert len(list((data_dir / "cache").iterdir())) == 1


def _full(file):
    raise OSError(28, "No space left on device", str(file))


@pytest.mark.usefixtures("data_dir")
def test_tap_points_are_found_anew_where_the_code_or_the_question_changed(monkeypatch):
    asked = []
    found = tap_points.tap_points
    monkeypatch.setattr(tap_points, "tap_points", lambda given: asked.append(1) or found(given))
    pipeline = Pipeline(experiment="x", dataset={"name": "ml-100k"}, models={"BPR": {}})
    first = tap_points.kept_tap_points(pipeline, ["BPR"])
    assert tap_points.kept_tap_points(pipeline, ["BPR"]) == first == found(pipeline)
    assert len(asked) == 1
    tap_points.kept_tap_points(pipeline, ["another"])
    monkeypatch.setattr(tap_points, "code_versions", lambda: {"code": "edited"})
    tap_points.kept_tap_points(pipeline, ["BPR"])
    assert len(asked) == 3


def test_a_mistake_is_said_at_once(world, done):
    assert done
    before = flow_runs()
    message = world.refused(*SMALL, "--set=evaluation.k=[10, 50]")
    assert "50 is larger than the number of items" in message
    assert flow_runs() == before
