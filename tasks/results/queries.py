"""What the results database says, read only: comparisons, contrasts, slices and free SQL.

Imports nothing that trains, so that a question is answered at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import duckdb

from models.config import BASELINE
from models.errors import BadInput
from tasks.results.database import database, database_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Rows = list[dict[str, Any]]
View = Literal["comparison", "contrasts_all", "slice_comparison"]

READ_WAIT_SECONDS = 15.0
"""An evaluation holds the database for a second or two."""

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
        return _rows("comparison", experiment) or _nothing_compared(experiment)
    rows = _rows("contrasts_all", experiment) or _nothing_compared(experiment)
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
        comparison_rows(experiment)  # says so where there is nothing to compare at all
        raise BadInput(
            f"{experiment or database_path()} has no slices: an earlier version evaluated it; "
            "run it once more, which trains nothing again"
        )
    return rows


def _rows(view: View, experiment: str | None) -> Rows:
    with reading() as connection:
        require_view(connection, view)
        names = experiments(connection)
        if experiment is not None and experiment not in names:
            raise unknown(experiment, names)
        shown = connection.sql(f"FROM {view}")
        rows = as_dicts(shown.columns, shown.fetchall())
    return [row for row in rows if experiment in (None, row["experiment"])]


def _nothing_compared(experiment: str | None) -> NoReturn:
    raise BadInput(
        f"{experiment or database_path()} holds no baseline with another arm to compare; set "
        "training.arms to [baseline, transfer] and run again (references: --against all)"
    )


def require_view(connection: "DuckDBPyConnection", view: View) -> None:
    """Say so where the database is empty, or an earlier version's."""
    known = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    if not known:
        raise BadInput(f"{database_path()} holds no results: run `llmkt run CONFIG` first")
    if (view,) not in known:
        raise BadInput(
            f"{database_path()} was written by an earlier version and has no {view} yet: run "
            "`llmkt run CONFIG` once more, which trains nothing again"
        )


def experiments(connection: "DuckDBPyConnection") -> list[str]:
    """Names of all experiments, in order."""
    found = connection.execute("SELECT DISTINCT experiment FROM runs ORDER BY ALL").fetchall()
    return [name for (name,) in found]


def unknown(experiment: str, names: Sequence[str]) -> BadInput:
    """The error for an experiment that is not there."""
    return BadInput(
        f"experiment {experiment} is not in {database_path()}, which has {', '.join(names)}"
    )


def query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows of what a statement selects; nothing can be changed.

    Raises:
        BadInput: if it is not one statement that reads, DuckDB refuses it, or the database is
            missing or stays busy.
    """
    with reading(_OFFLINE) as connection:
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
def reading(settings: Mapping[str, bool] | None = None) -> Iterator["DuckDBPyConnection"]:
    """Open the database read only, with patience for a person who waits."""
    with database(read_only=True, wait_seconds=READ_WAIT_SECONDS, settings=settings) as connection:
        yield connection


def as_dicts(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Rows:
    """Rows by column name."""
    return [dict(zip(columns, row, strict=True)) for row in rows]
