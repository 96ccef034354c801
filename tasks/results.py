"""What the results database says, read only: comparisons, contrasts, slices and free SQL."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import numpy as np

from models.contrasts import Contrast, Run, across
from models.errors import BadInput
from models.evaluation import BASELINE, UserValues
from models.terms import Terms
from tasks.storage import database, database_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Rows = list[dict[str, Any]]
View = Literal["comparison", "contrasts_all", "slice_comparison"]

READ_WAIT_SECONDS = 15.0
"""An evaluation holds the database for a second or two."""

_SQL = Path(__file__).parent / "sql"
_OFFLINE = {"enable_external_access": False, "lock_configuration": True}
"""No file is read or written, nothing is installed, and no setting changes that."""


def comparison_rows(experiment: str | None = None, against: str | None = None) -> Rows:
    """Every arm against its baseline, or against something else; the primary metric first.

    Args:
        experiment: only this one.
        against: another arm, a reference model, or `all`; None for the baseline.

    Raises:
        BadInput: if there is nothing to show; says what there is.
    """
    if against in (None, BASELINE):
        return _rows("comparison", experiment)
    rows = _rows("contrasts_all", experiment)
    chosen = [row for row in rows if against in ("all", row["against"])]
    if chosen:
        return chosen
    known = ", ".join(sorted({row["against"] for row in rows}))
    raise BadInput(
        f"nothing is held against {against} in {experiment or database_path()}, only against "
        f"{known}; two experiments are compared with `llmkt compare FIRST SECOND`"
    )


def slice_rows(experiment: str | None = None) -> Rows:
    """Every arm against its baseline in each slice of users and items.

    Raises:
        BadInput: if there is nothing to show; says why.
    """
    rows = _rows("slice_comparison", experiment)
    if not rows:
        raise BadInput(
            f"{experiment or database_path()} has no slices: they are made of rankings, not of "
            "predicted likes; run again if an earlier version evaluated it"
        )
    return rows


def _rows(view: View, experiment: str | None) -> Rows:
    with _reading() as connection:
        _require_view(connection, view)
        names = _experiments(connection)
        if experiment is not None and experiment not in names:
            raise _unknown(experiment, names)
        shown = connection.sql(f"FROM {view}")
        rows = _as_dicts(shown.columns, shown.fetchall())
        has_contrasts = connection.execute("SELECT DISTINCT experiment FROM contrasts").fetchall()
    if (experiment,) not in has_contrasts and not (experiment is None and has_contrasts):
        raise BadInput(
            f"{experiment or database_path()} holds no baseline with another arm to compare; set "
            "training.arms to [baseline, transfer] and run again"
        )
    return [row for row in rows if experiment in (None, row["experiment"])]


def _require_view(connection: "DuckDBPyConnection", view: View) -> None:
    known = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    if not known:
        raise BadInput(f"{database_path()} holds no results: run `llmkt run CONFIG` first")
    if (view,) not in known:
        raise BadInput(
            f"{database_path()} was written by an earlier version and has no {view} yet: run "
            "`llmkt run CONFIG` once more, which trains nothing again"
        )


def _experiments(connection: "DuckDBPyConnection") -> list[str]:
    found = connection.execute("SELECT DISTINCT experiment FROM runs ORDER BY ALL").fetchall()
    return [name for (name,) in found]


def _unknown(experiment: str, names: Sequence[str]) -> BadInput:
    return BadInput(
        f"experiment {experiment} is not in {database_path()}, which has {', '.join(names)}"
    )


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
    with _reading() as connection:
        _require_view(connection, "comparison")
        one, other = (_experiment(connection, name) for name in (first, second))
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
    names = _experiments(connection)
    if name not in names:
        raise _unknown(name, names)
    try:
        table = connection.sql((_SQL / "current_runs.sql").read_text(), params={"experiment": name})
        rows = _as_dicts(table.columns, table.fetchall())
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


def query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows of what a statement selects; nothing can be changed.

    Raises:
        BadInput: if it is not one statement that reads, DuckDB refuses it, or the database is
            missing or stays busy.
    """
    with _reading(_OFFLINE) as connection:
        try:
            statements = connection.extract_statements(sql)
            kinds = [of.type for of in statements]
            reads = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
            if len(kinds) != 1 or kinds[0] not in reads:
                raise BadInput(
                    "llmkt sql takes one statement that reads (SELECT, FROM, DESCRIBE, SHOW, "
                    "SUMMARIZE, EXPLAIN); the evaluation alone writes to the database"
                )
            found = connection.execute(statements[0])
            return [name for name, *_ in found.description or []], found.fetchall()
        except duckdb.Error as error:
            raise BadInput(f"DuckDB refuses the statement: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    """DuckDB's sentence, without the picture of the statement that follows it."""
    return " ".join(str(error).split("\n\n")[0].split())


@contextmanager
def _reading(settings: Mapping[str, bool] | None = None) -> Iterator["DuckDBPyConnection"]:
    with database(read_only=True, wait_seconds=READ_WAIT_SECONDS, settings=settings) as connection:
        yield connection


def _as_dicts(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rows:
    return [dict(zip(columns, row, strict=True)) for row in rows]
