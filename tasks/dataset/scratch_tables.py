"""The scratch tables of one data set: the content of its files, before it is an artifact."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from tasks.storage.artifact_batches import scratch
from tasks.storage.artifacts import Handle, write_batches
from tasks.storage.sql_scripts import script

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A name alone: the class in annotations would outlive DuckDB, which then reports leaks at exit.
Connection: TypeAlias = "DuckDBPyConnection"
_BATCH = 1 << 17


@contextmanager
def scratch_tables() -> Iterator[Connection]:
    """Open a scratch database with the tables of `sql/scratch_tables.sql`."""
    with scratch() as connection:
        execute(connection, "scratch_tables")
        yield connection


def execute(connection: Connection, name: str) -> None:
    """Run one of tasks/dataset/sql/*.sql."""
    connection.execute(script(f"dataset/{name}"))


def set_variables(connection: Connection, **variables: Any) -> None:
    """Set what a script reads by `getvariable`."""
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE {name} = $value", {"value": value})


def rows_of(connection: Connection, query: str, **values: Any) -> list[tuple[Any, ...]]:
    """Run a query with a small result and return its rows."""
    return connection.execute(query, values or None).fetchall()


def count(connection: Connection, rows: str) -> int:
    """Count the rows of a scratch table, perhaps with a condition."""
    return int(rows_of(connection, f"SELECT count(*) FROM {rows}")[0][0])


def write_query(
    connection: Connection,
    artifact: str,
    schema: pa.Schema,
    query: str,
    inputs: Mapping[str, Handle],
    config: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Handle:
    """Write the result of a query, which may name `values` as `$name`, as an artifact."""
    reader = connection.sql(query, params=values or None).to_arrow_reader(_BATCH)
    return write_batches(artifact, schema, reader, inputs, config)
