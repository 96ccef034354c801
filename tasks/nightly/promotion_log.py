"""How every night ended: the table `promotions` of the results database."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.publishing.outputs import Promotion
from tasks.results.database import create_tables, database, has_database, register_rows

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


def promotions(experiment: str) -> list[dict[str, Any]]:
    """An experiment's nights, newest first; empty where none is recorded."""
    import duckdb

    if not has_database():
        return []
    with database(read_only=True) as connection:
        try:
            found = connection.sql(
                (_SQL / "promotions.sql").read_text(), params={"experiment": experiment}
            )
        except duckdb.CatalogException:  # of a database that no night has written to
            return []
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
