"""Questions about lists and vectors in SQL, over tables in memory: `sql/NAME.sql`."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

_SQL = Path(__file__).parent / "sql"


def query(name: str, tables: Mapping[str, pa.Table], **variables: object) -> pa.Table:
    """Answer `sql/NAME.sql`; `variables` are read there by `getvariable`."""
    with duckdb.connect() as connection:
        for table, rows in tables.items():
            connection.register(table, rows)
        for variable, value in variables.items():
            connection.execute(f"SET VARIABLE {variable} = ?", [value])
        return connection.sql((_SQL / f"{name}.sql").read_text()).to_arrow_table()
