"""A scratch database for one data set: what its files hold, before it is an artifact."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.disk import writing
from tasks.storage import data_dir

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "2GB"
"""What does not fit goes to disk."""

_SQL = Path(__file__).parent / "sql"


@contextmanager
def scratch() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database of its own, on disk, gone afterwards."""
    import duckdb

    home = data_dir() / "scratch"
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            with duckdb.connect(
                str(Path(folder) / "scratch.duckdb"),
                config={"memory_limit": MEMORY_LIMIT, "temp_directory": folder},
            ) as connection:
                execute(connection, "data_tables")
                yield connection


def sql(script: str) -> str:
    """The text of one of tasks/sql/*.sql."""
    return (_SQL / f"{script}.sql").read_text()


def execute(connection: "duckdb.DuckDBPyConnection", script: str) -> None:
    """Run one of tasks/sql/*.sql."""
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
