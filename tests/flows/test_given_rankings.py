"""A model that was trained elsewhere, in a run and beside a search."""

import json
import shutil

import duckdb
import pytest
import yaml

from tests.support.toy_project import states, world  # noqa: F401 - a fixture

SETTINGS = {
    "models": {"BPR": {"hyperparameters": {"embedding_size": 8, "train_batch_size": 64}}},
    "training": {"epochs": 2, "seeds": [1], "workers": 1, "arms": ["baseline"]},
}


@pytest.fixture(scope="module")
def brought(world):  # noqa: F811
    """BPR's own rankings come back as those of `theirs`."""
    settings = yaml.safe_load(world.config.read_text()) | SETTINGS
    world.config.write_text(yaml.safe_dump(settings))
    world.run()
    (file,) = (world.data / "artifacts" / "training").glob("*.parquet")
    (world.folder / "runs").mkdir()
    shutil.copy(file, world.folder / "runs" / "2026.parquet")
    pattern = str(world.folder / "runs" / "{split.seed}*.parquet")
    settings["models"] = {**SETTINGS["models"], "theirs": {"rankings": pattern}}
    world.config.write_text(yaml.safe_dump(settings))
    return world, world.run()


def rows(world, sql):  # noqa: F811
    with duckdb.connect(world.data / "results.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_equal_rankings_have_equal_values(brought):
    world, done = brought  # noqa: F811
    values = rows(
        world,
        "SELECT DISTINCT metrics.* EXCLUDE (run_id) FROM metrics JOIN runs USING (run_id) "
        "GROUP BY ALL HAVING count(DISTINCT model) = 2",
    )
    assert len(values) == len(rows(world, "FROM metrics")) / 2
    assert [each["model"] for each in done["references"]] == ["BPR", "theirs"]
    page = (world.data / done["report"]).read_text()
    assert "trained elsewhere" in page


def test_a_second_run_is_cached(brought):
    world, _ = brought  # noqa: F811
    again = states(world.run())
    assert {state for name, state in again.items() if name != "report"} == {"cached"}


def test_the_name_of_a_trained_model_is_refused(brought):
    world, _ = brought  # noqa: F811
    assert "models.LightGCN.rankings: LightGCN names a model that is trained here. Give" in (
        world.refused("--set", "models.LightGCN.rankings=runs/*")
    )
    said = world.refused("--set", "models.theirs.hyperparameters.width=3")
    assert "with rankings, nothing is trained here. Leave out hyperparameters" in said
    said = world.refused("--set", "nightly.model=theirs")
    assert "nightly.model is theirs, but models has BPR" in said


def test_a_search_leaves_it_alone(brought):
    world, _ = brought  # noqa: F811
    file = world.folder / "search.yaml"
    space = {"models.BPR.hyperparameters.learning_rate": {"choices": [0.001, 0.01]}}
    search = {"trials": 2, "pruning": "none", "space": space}
    file.write_text(yaml.safe_dump({"base": world.config.name, "search": search}))
    done = world.llmkt("experiment", str(file), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["trials"] == 2
    assert rows(
        world, "SELECT search_trials FROM runs WHERE experiment = 'search' ORDER BY model"
    ) == [(2,), (None,)]


@pytest.mark.parametrize("experiment", ["toy", "search"])
def test_a_run_s_bundle_is_verified(brought, experiment):
    world, _ = brought  # noqa: F811
    file = str(world.folder / f"{experiment}.zip")
    done = world.llmkt("bundle", experiment, "-o", file)
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    checked = world.llmkt("verify", file)
    assert checked.returncode == 0, checked.stdout
    assert "theirs baseline seed 1: " in checked.stdout
