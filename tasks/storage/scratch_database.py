"""A temporary DuckDB database on disk, for data that need not fit into memory."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.storage.data_dir import data_dir
from tasks.storage.disk_errors import writing

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "2GB"
"""Beyond it, DuckDB spills to disk."""


@contextmanager
def scratch() -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open a temporary database on disk; it is deleted afterwards."""
    import duckdb

    home = data_dir() / "scratch"
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            with duckdb.connect(
                str(Path(folder) / "scratch.duckdb"),
                config={"memory_limit": MEMORY_LIMIT, "temp_directory": folder},
            ) as connection:
                yield connection
