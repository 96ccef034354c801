"""How every night ended: the table `promotions` of the results database."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from tasks.publishing.outputs import Promotion
from tasks.results.database import create_tables, database, has_database, register_rows
from tasks.results.queries import Rows, select

_SQL = Path(__file__).parent / "sql"


def record(rows: Sequence[Promotion]) -> None:
    """Write nights' rows, all or nothing."""
    if not rows:
        return
    with database() as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        register_rows(connection, "promotions", [row.model_dump() for row in rows])
        connection.execute((_SQL / "store_promotion.sql").read_text())
        connection.execute("COMMIT")


def promotions(experiment: str) -> Rows:
    """An experiment's nights, newest first; empty where none is recorded."""
    if not has_database():
        return []
    with database(read_only=True) as connection:
        try:
            sql = (_SQL / "promotions.sql").read_text()
            return select(connection, sql, experiment=experiment)
        except duckdb.CatalogException:  # of a database that no night has written to
            return []
