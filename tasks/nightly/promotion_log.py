"""How every night ended, and what knowledge added: `promotions` and `knowledge` in the results."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from tasks.publishing.outputs import Promotion
from tasks.results.database import create_tables, database, has_database, register_rows
from tasks.results.queries import Rows, select
from tasks.storage.sql_scripts import script


def record(rows: Sequence[Promotion]) -> None:
    """Write nights' rows, all or nothing."""
    store("promotions", [row.model_dump() for row in rows])


def store(table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write nights' rows of a table, all or nothing, in place of these nights' own."""
    if not rows:
        return
    with database() as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        register_rows(connection, table, rows)
        connection.execute(script("nightly/store").format(table=table))
        connection.execute("COMMIT")


def promotions(experiment: str, table: str = "promotions") -> Rows:
    """An experiment's nights, newest first; empty where none is recorded."""
    if not has_database():
        return []
    with database(read_only=True) as connection:
        try:
            sql = script("nightly/nights").format(table=table)
            return select(connection, sql, experiment=experiment)
        except duckdb.CatalogException:  # of a database that no night has written to
            return []


def measured(experiment: str) -> Rows:
    """What knowledge added on the nights that measured it, newest first: a row per control."""
    return promotions(experiment, "knowledge")


def newest(experiment: str) -> Rows:
    """The newest measurement, without differences by user."""
    rows = measured(experiment)
    latest = [row for row in rows if row["decided_at"] == rows[0]["decided_at"]]
    return [{k: v for k, v in row.items() if k != "differences"} for row in latest]
