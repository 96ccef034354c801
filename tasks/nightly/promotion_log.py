"""How every night ended: the table `promotions` of the results database."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.publishing.outputs import Promotion
from tasks.results.database import create_tables, database, has_database

_SQL = Path(__file__).parent / "sql"
_TYPES = {
    "decided_at": pa.timestamp("us", tz="UTC"),
    "k": pa.int32(),
    "users": pa.int32(),
    **dict.fromkeys(("interactions", "new_interactions", "quarantined"), pa.int64()),
    **dict.fromkeys(("champion_mean", "challenger_mean", "difference"), pa.float64()),
    **dict.fromkeys(("ci_low", "ci_high", "tolerance", "cost_usd"), pa.float64()),
}
"""Of columns that are no text."""


def record(rows: Sequence[Promotion]) -> None:
    """Write nights' rows, all or nothing."""
    if not rows:
        return
    names = tuple(Promotion.model_fields)
    schema = pa.schema([pa.field(name, _TYPES.get(name, pa.string())) for name in names])
    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema)
    with database() as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        connection.register("new_promotion", table)
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
