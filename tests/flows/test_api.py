"""The Python interface: configurations of every kind, data frames, notebooks, scripts."""

import asyncio
import os
import subprocess
import sys

import nbclient
import nbformat
import pandas as pd
import polars as pl
import pytest
import yaml

from flows import api, run
from models.errors import BadInput
from tasks.config.pipeline_file import load
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_project import no_workers, world  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def settings(world):  # noqa: F811
    raw = yaml.safe_load(world.config.read_text())
    return raw | {
        "models": {"BPR": {"hyperparameters": {"embedding_size": 8, "train_batch_size": 64}}},
        "training": {"epochs": 2, "seeds": [1], "workers": 1},
    }


@pytest.fixture(scope="module")
def result(world, settings):  # noqa: F811
    with pytest.MonkeyPatch.context() as patch, no_workers():
        patch.setenv("PREFECT_API_URL", world.api)
        patch.setenv("LLMKT_DATA_DIR", str(world.data))

        async def cell() -> api.Result:  # a notebook's cell runs inside an event loop
            return run(settings, data_dir=str(world.data))

        yield asyncio.run(cell())


def test_a_mapping_runs_inside_an_event_loop(result):
    frame = result.frame()
    assert isinstance(frame, pd.DataFrame)
    assert set(frame["arm"]) == {"transfer"}
    assert isinstance(result.frame(polars=True), pl.DataFrame)
    assert result.frame(polars=True).height == len(frame)
    assert set(result.frame("metrics")["split"]) == {"valid", "test"}
    assert len(result.frame("runs")) == 2
    with pytest.raises(
        BadInput, match=r"results: there is no such table. Choose one of comparison"
    ):
        result.frame("results")


def test_the_figure_has_a_row_per_arm(result):
    figure = result.figure()
    assert [list(trace.y) for trace in figure.data] == [["BPR transfer"]]
    gain = result.frame().query("is_primary")["gain_percent"].item()
    assert list(figure.data[0].x) == pytest.approx([gain])


def test_a_path_and_a_pydantic_object_are_the_same_run(result, world, settings):  # noqa: F811
    assert result.summary.experiment == "toy"
    file = world.folder / "same.yaml"
    file.write_text(yaml.safe_dump(settings))
    for config in (file, str(file), load(file)):
        again = run(config)
        assert {stage.state for stage in again.summary.stages if stage.name == "training"} == {
            "cached"
        }


def test_bad_settings_are_one_sentence(world, settings):  # noqa: F811
    with pytest.raises(BadInput, match=r"settings.yaml: epoch is not a known key"):
        run(settings | {"epoch": 3}, data_dir=str(world.data))


SCRIPT = """
from flows import run
result = run({settings!r}, data_dir={data!r})
print(result.summary.experiment)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(world, settings, tmp_path):  # noqa: F811
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT.format(settings=settings, data=str(tmp_path / "data")))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=PROJECT_ROOT,
        env=os.environ | {"PREFECT_API_URL": world.api, "PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode != 0
    assert "call this under `if __name__ == '__main__':` in a script" in done.stderr
    assert "Unavailable: a worker process ended early. In a script, call under" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first_comparison", "own_data_to_published_list"])
def test_the_notebooks_run(name, world, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PREFECT_API_URL", world.api)
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    notebook = nbformat.read(PROJECT_ROOT / "examples" / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.outputs
    assert last.outputs[0].output_type != "error"
