"""Read-only questions to the results database: comparisons, contrasts, slices and free SQL.

Imports nothing that trains, so that a question is answered at once.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import duckdb

from models.config import BASELINE
from models.errors import BadInput
from tasks.results.database import database, database_path, has_database, is_damage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Rows = list[dict[str, Any]]
Tried = tuple[str, str, str, str, int]
"""Point, model, arm, search and number of a trial."""

READ_WAIT_SECONDS = 15.0
"""An evaluation holds the database for a second or two."""

_VIEW = "FROM {} WHERE $experiment IS NULL OR experiment = $experiment"
_OFFLINE = {"enable_external_access": False, "lock_configuration": True}
"""No file is read or written, nothing is installed, and no setting changes that."""


def comparison_rows(experiment: str | None = None, against: str | None = None) -> Rows:
    """Every arm compared with its baseline, or with something else; the primary metric first.

    `against` is another arm, a reference model, or `all`; None means the baseline.

    Raises:
        BadInput: if there is nothing to show; says what there is.
    """
    with_baseline = against in (None, BASELINE)
    rows = rows_of(experiment, _VIEW.format("comparison" if with_baseline else "contrasts_all"))
    if not rows:
        raise BadInput(
            f"{experiment or database_path()}: no baseline with another arm to compare. Set "
            "training.arms to [baseline, transfer] and run again, or see references with "
            "`--against all`."
        )
    chosen = [row for row in rows if with_baseline or against in ("all", row["against"])]
    if not chosen:
        known = ", ".join(sorted({row["against"] for row in rows}))
        raise BadInput(
            f"{experiment or database_path()}: no comparison with '{against}'. Choose one of "
            f"{known}, or compare two experiments with `llmkt compare FIRST SECOND`."
        )
    return chosen


def slice_rows(experiment: str | None = None) -> Rows:
    """Every arm compared with its baseline in each slice; BadInput if there is nothing to show."""
    rows = rows_of(experiment, _VIEW.format("slice_comparison"))
    if not rows:
        comparison_rows(experiment)  # refuses what has no comparison at all
        raise BadInput(
            f"{experiment or database_path()}: no slice has users to compare. Leave --slices out."
        )
    return rows


def chosen_settings(experiment: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what an experiment's latest search chose on validation, by model, arm and dotted key.

    Raises:
        BadInput: if there is no search, or it chose differently at several points.
    """
    rows = rows_of(
        experiment,
        "SELECT model, arm, params FROM trials WHERE is_best AND is_current AND "
        "experiment = $experiment ORDER BY ALL",
    )
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        values = json.loads(row["params"])
        if found.setdefault(row["model"], {}).setdefault(row["arm"], values) != values:
            raise BadInput(
                f"{experiment}: its points have settings of their own for {row['model']} "
                f"{row['arm']}. Search at one point"
            )
    if not found:
        raise BadInput(f"{experiment}: it has no search. Add search to the file and run it")
    return found


def earlier_trials(experiment: str) -> set[Tried]:
    """Every trial of an experiment that the results database holds."""
    if not has_database():
        return set()
    with reading() as connection:
        if not connection.execute("FROM duckdb_tables() WHERE table_name = 'trials'").fetchall():
            return set()
        found = connection.execute(
            "SELECT point, model, arm, search, trial FROM trials WHERE experiment = ?",
            [experiment],
        )
        return {(*texts, trial) for *texts, trial in found.fetchall()}


def rows_of(experiment: str | None, sql: str) -> Rows:
    """What a query of `$experiment` selects; BadInput for an experiment that is not there."""
    with reading() as connection:
        require_experiment(connection, experiment)
        return select(connection, sql, experiment=experiment)


def require_experiment(connection: "DuckDBPyConnection", name: str | None) -> None:
    """Refuse a database without results, and an experiment that is not in it."""
    if not connection.execute("SELECT * FROM duckdb_views() WHERE NOT internal").fetchall():
        raise BadInput(f"{database_path()}: holds no results. Run `llmkt run CONFIG` first.")
    found = connection.execute("SELECT DISTINCT experiment FROM runs ORDER BY ALL").fetchall()
    names = [known for (known,) in found]
    if name not in (None, *names):
        raise BadInput(
            f"{database_path()}: no experiment '{name}'. Choose one of {', '.join(names)}."
        )


def query(sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names and rows of what a statement selects; BadInput if it fails, or does not only read."""
    with reading(_OFFLINE) as connection:
        try:
            statements = connection.extract_statements(sql)
            kinds = [statement.type for statement in statements]
            reads = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
            if len(kinds) != 1 or kinds[0] not in reads:
                raise BadInput(
                    "llmkt sql takes one statement that reads (SELECT, FROM, DESCRIBE, SHOW, "
                    "SUMMARIZE, EXPLAIN); the evaluation alone writes to the database"
                )
            found = connection.execute(statements[0])
            return [name for name, *_ in found.description or []], found.fetchall()
        except duckdb.Error as error:
            if is_damage(error) and not isinstance(error, duckdb.ProgrammingError):
                raise
            # The sentence, without the picture of the statement that follows it.
            sentence = " ".join(str(error).split("\n\n")[0].split())
            raise BadInput(f"DuckDB refuses the statement: {sentence}") from error


def reading(
    settings: Mapping[str, bool] | None = None,
) -> AbstractContextManager["DuckDBPyConnection"]:
    """Open the database read-only, with patience for a person who waits."""
    return database(read_only=True, wait_seconds=READ_WAIT_SECONDS, settings=settings)


def select(connection: "DuckDBPyConnection", sql: str, **parameters: Any) -> Rows:
    """Rows of a query by column name."""
    found = connection.execute(sql, parameters)
    columns: Sequence[str] = [name for name, *_ in found.description or []]
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
