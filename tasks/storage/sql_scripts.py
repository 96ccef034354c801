"""The scripts `tasks/ROOM/sql/NAME.sql`, by `ROOM/NAME`, and questions over tables in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def script(name: str) -> str:
    """Read a script."""
    room, _, file = name.partition("/")
    return (Path(__file__).parents[1] / room / "sql" / f"{file}.sql").read_text()


def query(name: str, tables: "Mapping[str, pa.Table]", **variables: object) -> "pa.Table":
    """Answer a script; `variables` are read there by `getvariable`."""
    import duckdb  # not above: worker processes read scripts, but no database

    with duckdb.connect() as connection:
        for table, rows in tables.items():
            connection.register(table, rows)
        for variable, value in variables.items():
            connection.execute(f"SET VARIABLE {variable} = ?", [value])
        return connection.sql(script(name)).to_arrow_table()
