"""The scratch tables of one data set: what its files hold, before it is an artifact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.storage.scratch_database import scratch

if TYPE_CHECKING:
    import duckdb

_SQL = Path(__file__).parent / "sql"


@contextmanager
def scratch_tables() -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open a scratch database with the tables of `sql/scratch_tables.sql`."""
    with scratch() as connection:
        execute(connection, "scratch_tables")
        yield connection


def sql(script: str) -> str:
    """The text of one of tasks/dataset/sql/*.sql."""
    return (_SQL / f"{script}.sql").read_text()


def execute(connection: "duckdb.DuckDBPyConnection", script: str) -> None:
    """Run one of tasks/dataset/sql/*.sql."""
    connection.execute(sql(script))


def set_variables(connection: "duckdb.DuckDBPyConnection", **variables: Any) -> None:
    """Set what a script reads by `getvariable`."""
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE {name} = $value", {"value": value})


def rows_of(connection: "duckdb.DuckDBPyConnection", query: str) -> list[tuple[Any, ...]]:
    """The rows of a small result."""
    return connection.execute(query).fetchall()


def count(connection: "duckdb.DuckDBPyConnection", what: str) -> int:
    """Rows of a scratch table, perhaps with a condition."""
    return int(rows_of(connection, f"SELECT count(*) FROM {what}")[0][0])
