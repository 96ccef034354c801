"""Evaluations into the results database."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.execution.cache_key import content
from tasks.results.database import create_tables, database, register_rows
from tasks.results.queries import Rows
from tasks.storage.artifacts import PROJECT_ROOT

_SQL = Path(__file__).parent / "sql"


def digest(value: Mapping[str, Any]) -> str:
    """16 hex digits over content."""
    canonical = json.dumps(content(value), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def store(tables: Mapping[str, Rows | pa.Table | pa.RecordBatchReader]) -> None:
    """Write all new rows, by table, or none; without `runs` only points and trials are replaced.

    An interrupted evaluation leaves the database as it was.
    """
    scripts = ("store_evaluation", "store_points") if "runs" in tables else ("store_points",)
    with database() as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        for table, rows in tables.items():
            if isinstance(rows, list):
                register_rows(connection, table, rows)
            else:
                connection.register(f"new_{table}", rows)
        for script in scripts:
            connection.execute((_SQL / f"{script}.sql").read_text())
        connection.execute("COMMIT")


def git_sha() -> str | None:
    """The commit of the project's own repository, None outside of one."""
    command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    root, sha = done.stdout.splitlines()
    return sha if Path(root).resolve() == PROJECT_ROOT else None
