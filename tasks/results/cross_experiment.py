"""Two experiments held against each other, from what the results database keeps of every user."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from models.errors import BadInput
from models.evaluation.user_scores import UserValues
from models.report.wording import listed
from models.statistics.comparability import Terms
from models.statistics.contrasts import Contrast, Run
from models.statistics.cross_experiment import across
from tasks.results.queries import Rows, as_dicts, experiments, reading, require_view, unknown

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class _Experiment:
    """The runs of an experiment's latest evaluation, by point; under None where it has none."""

    name: str
    points: Mapping[str | None, Rows]

    @property
    def plain(self) -> bool:
        """Whether it has no points."""
        return None in self.points


@dataclass(frozen=True)
class Across:
    """One experiment's arms against another's.

    Attributes:
        rows: with the keys of view `contrasts_all`.
        notes: which points have no counterpart, in a sentence each.
    """

    rows: Rows
    notes: tuple[str, ...] = ()


def held_across(first: str, second: str) -> Across:
    """The arms of one experiment against the same arms of another, on what both measured.

    Points are held against the points of the same name; an experiment without points against
    every point of the other.

    Raises:
        BadInput: if an experiment is not there, their data sets or splits differ, or they share
            no point, or no model and arm.
    """
    with reading() as connection:
        require_view(connection, "comparison")
        one, other = (_experiment(connection, name) for name in (first, second))
        matched = _matched(one, other)
        for point, both in matched.items():
            _require_one_split(one.name, other.name, point, both)
        values = _values(connection, sorted({row["run_id"] for row in _all(matched)}))
    runs = {
        point: (_runs(of_one, values), _runs(of_other, values))
        for point, (of_one, of_other) in matched.items()
    }
    origins: dict[tuple[str | None, str, str], Mapping[str, Any]] = {}
    for point, (of_one, _) in matched.items():
        for row in of_one:
            origins[point, row["model"], row["arm"]] = row
            origins.setdefault((None, row["model"], row["arm"]), row)
    primary = _primary(json.loads(next(iter(origins.values()))["config"]))
    found = across(runs, second, primary)
    if not found:
        raise BadInput(
            f"experiments {first} and {second} share no model with the same arm and metric"
        )
    rows = [_row(of, first, origins[of.point, of.model, of.arm]) for of in found]
    return Across(rows, tuple(_without_counterpart(one, other)))


def _all(matched: Mapping[str | None, tuple[Rows, Rows]]) -> Iterator[Mapping[str, Any]]:
    for of_one, of_other in matched.values():
        yield from (*of_one, *of_other)


def _matched(one: _Experiment, other: _Experiment) -> dict[str | None, tuple[Rows, Rows]]:
    """The rows of both, by what they are held against each other as."""
    if one.plain:
        return {point: (one.points[None], rows) for point, rows in other.points.items()}
    if other.plain:
        return {point: (rows, other.points[None]) for point, rows in one.points.items()}
    found = {
        point: (rows, other.points[point])
        for point, rows in one.points.items()
        if point in other.points
    }
    if not found:
        raise BadInput(
            f"experiments {one.name} and {other.name} share no point: "
            + "; ".join(_without_counterpart(one, other))
        )
    return found


def _without_counterpart(one: _Experiment, other: _Experiment) -> Iterator[str]:
    if one.plain or other.plain:
        return
    for here, there in ((one, other), (other, one)):
        alone = [str(point) for point in here.points if point not in there.points]
        if alone:
            yield f"only {here.name} has {listed(alone)}"


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
    statement = (_SQL / "runs_by_point.sql").read_text()
    points = connection.execute(statement, {"experiment": name}).fetchall()
    if not points:
        return _Experiment(name, {None: rows})
    of_points = {point: set(run_ids) for point, run_ids in points}
    return _Experiment(
        name,
        {
            point: [row for row in rows if row["run_id"] in run_ids]
            for point, run_ids in of_points.items()
        },
    )


def _require_one_split(one: str, other: str, point: str | None, both: tuple[Rows, Rows]) -> None:
    differing = []
    for field in ("dataset", "split_digest"):
        of_one, of_other = (rows[0][field] for rows in both)
        if of_one != of_other:
            differing.append((field, of_one, of_other))
    if not differing:
        return
    settings = [json.loads(rows[0]["config"])["split"] for rows in both]
    for key in settings[0].keys() | settings[1].keys():
        of_one, of_other = (setting.get(key) for setting in settings)
        if of_one != of_other:
            differing.append((f"split.{key}", of_one, of_other))
    said = ", ".join(f"{field} ({one} {a}; {other} {b})" for field, a, b in sorted(differing))
    where = f" at {point}" if point else ""
    raise BadInput(f"experiments {one} and {other} cannot be compared{where}: {said}")


def _primary(config: Mapping[str, Any]) -> str:
    primary: str = config["evaluation"]["primary"]
    return primary


def _runs(rows: Rows, values: Mapping[str, UserValues]) -> list[Run]:
    terms = [field.name for field in fields(Terms)]
    return [
        Run(
            row["model"],
            row["arm"],
            row["seed"],
            Terms(**{name: row[name] for name in terms}),
            values[row["run_id"]],
            row["run_id"],
        )
        for row in rows
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
