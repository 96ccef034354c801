"""Two experiments held against each other, from what the results database keeps of every user."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from models.contrasts import Contrast, Run, across
from models.errors import BadInput
from models.evaluation import UserValues
from models.terms import Terms
from tasks.results import Rows, as_dicts, experiments, reading, require_view, unknown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class _Experiment:
    """The runs of an experiment's latest evaluation."""

    name: str
    rows: Rows
    config: Mapping[str, Any]


def rows_across(first: str, second: str) -> Rows:
    """The arms of one experiment against the same arms of another, on what both measured.

    Raises:
        BadInput: if an experiment is not there, their data sets or splits differ, or they share
            no model and arm.
    """
    with reading() as connection:
        require_view(connection, "comparison")
        one, other = (_experiment(connection, name) for name in (first, second))
        _require_no_points(one, other)
        _require_one_split(one, other)
        found = across(
            _runs(connection, one), _runs(connection, other), second, _primary(one.config)
        )
    if not found:
        raise BadInput(
            f"experiments {first} and {second} share no model with the same arm and metric"
        )
    origins = {(row["model"], row["arm"]): row for row in one.rows}
    return [_row(of, first, origins[of.model, of.arm]) for of in found]


def _experiment(connection: "DuckDBPyConnection", name: str) -> _Experiment:
    names = experiments(connection)
    if name not in names:
        raise unknown(name, names)
    try:
        table = connection.sql((_SQL / "current_runs.sql").read_text(), params={"experiment": name})
        rows = as_dicts(table.columns, table.fetchall())
    except duckdb.BinderException:  # the columns are not there
        rows = []
    if not rows:
        raise BadInput(
            f"experiment {name} was evaluated by an earlier version, which did not record its "
            "split: run it once more, which trains nothing again"
        )
    return _Experiment(name, rows, json.loads(rows[0]["config"]))


def _require_one_split(one: _Experiment, other: _Experiment) -> None:
    differing = []
    for field in ("dataset", "split_digest"):
        of_one, of_other = (experiment.rows[0][field] for experiment in (one, other))
        if of_one != of_other:
            differing.append((field, of_one, of_other))
    if not differing:
        return
    settings = [experiment.config["split"] for experiment in (one, other)]
    for key in settings[0].keys() | settings[1].keys():
        of_one, of_other = (setting.get(key) for setting in settings)
        if of_one != of_other:
            differing.append((f"split.{key}", of_one, of_other))
    said = ", ".join(
        f"{field} ({one.name} {a}; {other.name} {b})" for field, a, b in sorted(differing)
    )
    raise BadInput(f"experiments {one.name} and {other.name} cannot be compared: {said}")


def _require_no_points(*found: _Experiment) -> None:
    for experiment in found:
        if any(row["point"] is not None for row in experiment.rows):
            raise BadInput(
                f"experiment {experiment.name} has points, whose arms are compared among "
                f"themselves: llmkt compare {experiment.name}"
            )


def _primary(config: Mapping[str, Any]) -> str:
    primary: str = config["evaluation"]["primary"]
    return primary


def _runs(connection: "DuckDBPyConnection", experiment: _Experiment) -> list[Run]:
    values = _values(connection, [row["run_id"] for row in experiment.rows])
    terms = [field.name for field in fields(Terms)]
    return [
        Run(
            row["model"],
            row["arm"],
            row["seed"],
            Terms(**{name: row[name] for name in terms}),
            values[row["run_id"]],
        )
        for row in experiment.rows
    ]


def _values(connection: "DuckDBPyConnection", run_ids: list[str]) -> dict[str, UserValues]:
    """What `user_metrics` holds of each run."""
    table = connection.sql(
        (_SQL / "run_values.sql").read_text(), params={"run_ids": run_ids}
    ).fetchnumpy()
    # NULL stands for no cut-off.
    cuts = np.ma.filled(table["k"], 0).astype(np.int64)
    starts = [0] + [
        int(place)
        for place in np.flatnonzero(
            (table["run_id"][1:] != table["run_id"][:-1])
            | (table["metric"][1:] != table["metric"][:-1])
            | (cuts[1:] != cuts[:-1])
        )
        + 1
    ]
    found: dict[str, UserValues] = {}
    for start, stop in zip(starts, [*starts[1:], len(cuts)], strict=True):
        users = np.asarray(table["user_id"][start:stop], dtype=np.str_)
        of_run = found.setdefault(table["run_id"][start], UserValues(users, {}))
        column = (str(table["metric"][start]), int(cuts[start]) or None)
        of_run.values[column] = np.asarray(table["value"][start:stop], dtype=np.float64)
    return found


def _row(contrast: Contrast, experiment: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """With the keys of view `contrasts_all`."""
    facts = dict(vars(contrast))
    return {
        "experiment": experiment,
        **{key: run[key] for key in ("dataset", "profile_source", "profile_provenance")},
        **vars(facts.pop("comparison")),
        **facts,
    }
