"""The Python interface: `run("configs/ml-100k.yaml", ["training.epochs=5"]).frame()`."""

import json
import multiprocessing
import pkgutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.cli.common import configure_prefect

Config = str | Path | Mapping[str, Any] | BaseModel
"""A YAML file, its content, or a `models.config.Pipeline` (`Experiment`)."""


@dataclass(frozen=True)
class Result:
    """What a flow returned, with its tables and its figure."""

    summary: Any

    def frame(self, table: str = "comparison", polars: bool = False) -> Any:
        """A table of the results database as a data frame of pandas, or of polars."""
        from tasks.results.frames import as_frame, rows_of

        return as_frame(rows_of(self.summary.experiment, table), polars)

    def figure(self) -> Any:
        """The gains on the primary metric with their intervals: a Plotly figure."""
        from tasks.results.frames import forest_figure

        return forest_figure(self.summary.experiment)


def run(config: Config, overrides: Sequence[str] = (), data_dir: str | None = None) -> Result:
    """Run a pipeline and compare its arms, as `llmkt run`; raises BadInput as it does."""
    return _call("knowledge_transfer.run", config, overrides, data_dir)


def experiment(
    config: Config, overrides: Sequence[str] = (), data_dir: str | None = None
) -> Result:
    """Run every point of an experiment, as `llmkt experiment --yes`."""
    return _call("experiment_grid.run", config, overrides, data_dir)


def nightly(config: Config, overrides: Sequence[str] = (), data_dir: str | None = None) -> Result:
    """Train a challenger and publish it if it may be, as `llmkt nightly`."""
    return _call("nightly_retrain.nightly_retrain", config, overrides, data_dir)


def recommend(
    user: str, k: int | None = None, experiment: str | None = None, data_dir: str | None = None
) -> Any:
    """A user's published recommendations, best first, as a data frame."""
    configure_prefect(data_dir)
    from tasks.publishing.manifest import the_experiment
    from tasks.publishing.recommendation_lookup import recommended
    from tasks.results.frames import as_frame

    found = recommended(the_experiment(experiment), user, k)
    return as_frame([item.model_dump() for item in found.items])


def _call(flow: str, config: Config, overrides: Sequence[str], data_dir: str | None) -> Result:
    """Set Prefect up and call a function of `flows`, with settings that are no file in one."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit("flows: call this under `if __name__ == '__main__':` in a script.")
    configure_prefect(data_dir)
    function = pkgutil.resolve_name(f"flows.{flow}")
    if isinstance(config, str | Path):
        return Result(function(Path(config).expanduser(), overrides))
    settings = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")
        return Result(function(path, overrides))
