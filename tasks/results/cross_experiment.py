"""The arms of one experiment compared with those of another, from stored values per user."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.config import PerUser
from models.errors import BadInput
from models.evaluation.user_scores import Column, UserValues
from models.report.wording import listed
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import experiment_contrasts
from tasks.results.queries import Rows, reading, require_experiment, select
from tasks.storage.sql_scripts import script

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_KNOWN = ("dataset", "profile_source", "profile_provenance", "warnings")

Points = dict[str | None, Rows]
"""The runs of an experiment's latest evaluation by point; under None where it has no points."""
Matched = dict[str | None, tuple[Rows, Rows]]
"""The runs of both experiments, by the point under which they are compared."""


def compare_experiments(first: str, second: str) -> tuple[Rows, list[str]]:
    """Compare the arms of one experiment with the same arms of another, on their common metrics.

    Points are compared with the points of the same name; an experiment without points with every
    point of the other.

    Returns:
        Rows with the keys of view `contrasts_all`; and which points have no counterpart, a
        sentence per experiment.

    Raises:
        BadInput: if an experiment is not there, their data sets or splits differ, or they share
            no point, or no model and arm.
    """
    matched, notes, values = _read(first, second)
    points = {
        point: (runs_of(own, values), runs_of(others, values))
        for point, (own, others) in matched.items()
    }
    config = json.loads(next(iter(matched.values()))[0][0]["config"])
    found = experiment_contrasts(points, second, config["evaluation"]["primary"])
    if not found:
        raise BadInput(
            f"experiments {first} and {second}: no model in common with the same arm and metric. "
            "Choose experiments that share one."
        )
    known = {
        (key, row["model"], row["arm"]): {name: row[name] for name in _KNOWN}
        for point, (own, _) in matched.items()
        for row in own
        for key in (point, None)  # None: of a contrast that several points share
    }
    rows = [
        {"experiment": first, "family": None} | known[each.point, each.model, each.arm] | each.row()
        for each in found
    ]
    return rows, notes


def _read(first: str, second: str) -> tuple[Matched, list[str], dict[str, UserValues]]:
    """The runs that are compared, the points that are not, and values per user by run id."""
    with reading() as connection:
        one, other = (points_of(connection, name) for name in (first, second))
        notes = _unmatched(first, one, second, other)
        matched = _matched(one, other)
        if not matched:
            raise BadInput(
                f"experiments {first} and {second}: no point in common ({'; '.join(notes)}). "
                "Choose experiments that share a point, or one without points."
            )
        for point, both in matched.items():
            _require_one_split(first, second, point, both)
        run_ids = {row["run_id"] for both in matched.values() for rows in both for row in rows}
        return matched, notes, user_values(connection, run_ids)


def points_of(connection: "DuckDBPyConnection", experiment: str) -> Points:
    """The runs of an experiment's latest evaluation, by point."""
    require_experiment(connection, experiment)
    points: Points = {}
    for row in select(connection, script("results/current_runs"), experiment=experiment):
        points.setdefault(row["point"], []).append(row)
    return points


def _matched(one: Points, other: Points) -> Matched:
    if None in one:
        return {point: (one[None], rows) for point, rows in other.items()}
    if None in other:
        return {point: (rows, other[None]) for point, rows in one.items()}
    return {point: (rows, other[point]) for point, rows in one.items() if point in other}


def _unmatched(first: str, one: Points, second: str, other: Points) -> list[str]:
    if None in one or None in other:
        return []
    return [
        f"only {name} has {listed(alone)}"
        for name, here, there in ((first, one, other), (second, other, one))
        if (alone := [str(point) for point in here if point not in there])
    ]


def _require_one_split(first: str, second: str, point: str | None, both: tuple[Rows, Rows]) -> None:
    facts = [
        {key: ", ".join(sorted({row[key] for row in rows})) for key in ("dataset", "split_digest")}
        for rows in both
    ]
    if facts[0] == facts[1]:
        return
    for fact, rows in zip(facts, both, strict=True):
        split = json.loads(rows[0]["config"])["split"]
        fact |= {f"split.{key}": value for key, value in split.items()}
    differing = ", ".join(
        f"{key} ({first} {facts[0].get(key)}; {second} {facts[1].get(key)})"
        for key in sorted(facts[0].keys() | facts[1].keys())
        if facts[0].get(key) != facts[1].get(key)
    )
    where = f" at {point}" if point else ""
    raise BadInput(f"experiments {first} and {second} cannot be compared{where}: {differing}")


def runs_of(rows: Rows, values: Mapping[str, UserValues]) -> list[Run]:
    """Rows of `runs` as they are compared, with their values per user by run id."""
    names = [field.name for field in fields(Terms)]
    return [
        Run(
            row["model"],
            row["arm"],
            row["seed"],
            Terms(**{name: row[name] for name in names}),
            values[row["run_id"]],
            row["run_id"],
            row["alpha"],
        )
        for row in rows
    ]


def user_values(connection: "DuckDBPyConnection", run_ids: Iterable[str]) -> dict[str, UserValues]:
    """The rows of `user_metrics`, by run."""
    selected = connection.sql(script("results/run_values"), params={"run_ids": list(run_ids)})
    names: dict[str, NDArray[np.str_]] = {}
    found: dict[str, dict[Column, PerUser]] = {}
    for run_id, metric, k, users, values in zip(*selected.to_arrow_table().columns, strict=True):
        run = run_id.as_py()
        if run not in names:
            names[run] = np.asarray(users.values.to_numpy(zero_copy_only=False), np.str_)
        found.setdefault(run, {})[metric.as_py(), k.as_py()] = values.values.to_numpy()
    return {run: UserValues(names[run], values) for run, values in found.items()}
