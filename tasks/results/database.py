"""The results database: one DuckDB file, of which each machine that shares a store has a copy.

DuckDB needs a file system. So a writer fetches the store's newest file first and uploads the
changed one, and a reader fetches the newest. Two machines that write at the same moment both
succeed, and the file of the later one stays: the other's evaluation no longer finds its rows and
is computed again by its next run.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin, get_type_hints

from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from models.errors import BadInput
from tasks.storage.data_dir import data_dir, data_lock
from tasks.storage.disk_errors import reason, writing
from tasks.storage.object_store import Store, store
from tasks.storage.sql_scripts import script

if TYPE_CHECKING:
    import duckdb

DATABASE_WAIT_SECONDS = 120.0
_NAME = "results.duckdb"
_BUSY = r"(?is).*(could not set lock|conflicting lock).*"
"""What DuckDB says of a file that another process holds."""


def database_path() -> Path:
    """Path of the results database."""
    return data_dir() / _NAME


@contextmanager
def database(
    read_only: bool = False,
    wait_seconds: float = DATABASE_WAIT_SECONDS,
    settings: Mapping[str, bool] | None = None,
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open the results database, waiting for other processes; BadInput if it is unusable."""
    remote = store()
    synchronized = nullcontext() if remote is None else _synchronized(remote, read_only)
    with synchronized, _connected(read_only, wait_seconds, settings or {}) as connection:
        yield connection


def has_database() -> bool:
    """Whether there is a results database, here or in the store."""
    remote = store()
    if remote is not None:
        _refresh(remote)
    return database_path().exists()


def create_tables(connection: "duckdb.DuckDBPyConnection") -> None:
    """Create the tables and views that are not there yet."""
    connection.execute(schema())


def schema() -> str:
    """`sql/schema.sql` with the fields of `Contrast` as columns."""
    from models.statistics.contrasts import Contrast

    return script("results/schema").format(contrast="\n    ".join(_columns(Contrast)))


def _columns(record: type) -> Iterator[str]:
    """Definitions of columns for the fields of a dataclass and of the dataclasses in it."""
    types = {str: "VARCHAR", int: "INTEGER", float: "DOUBLE", bool: "BOOLEAN"}
    for name, hint in get_type_hints(record, include_extras=True).items():
        if is_dataclass(hint):
            yield from _columns(cast(type, hint))
            continue
        kind, comment = get_args(hint) if get_origin(hint) is Annotated else (hint, "")
        kinds = get_args(kind) or (kind,)
        constraint = "" if NoneType in kinds else " NOT NULL"
        yield f"{name} {types[kinds[0]]}{constraint},{comment and f'  -- {comment}'}"


def register_rows(
    connection: "duckdb.DuckDBPyConnection", table: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Show rows to SQL scripts as the view `new_TABLE`, with the columns and types of the table."""
    import pyarrow as pa

    schema = connection.sql(f"FROM {table} LIMIT 0").to_arrow_table().schema
    connection.register(f"new_{table}", pa.Table.from_pylist(rows, schema))


@contextmanager
def _connected(
    read_only: bool, wait_seconds: float, settings: Mapping[str, bool]
) -> Iterator["duckdb.DuckDBPyConnection"]:
    import duckdb  # not above: worker processes need the rest of this module, but no database

    path = database_path()
    if read_only and not path.exists():
        raise BadInput(f"{path}: does not exist. Run `llmkt run CONFIG` first.")
    if not read_only:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    connect = retry(
        retry=retry_if_exception_message(match=_BUSY),
        stop=stop_after_delay(wait_seconds),
        wait=wait_random(0.1, 0.5),
        reraise=True,
    )(duckdb.connect)
    try:
        connection = connect(str(path), read_only=read_only, config=dict(settings))
    except duckdb.Error as error:
        raise _cannot_open(path, wait_seconds, error) from error
    try:
        with writing(path):
            yield connection
    except duckdb.Error as error:
        if is_damage(error):
            raise _damaged(path) from error
        raise
    finally:
        connection.close()


def _cannot_open(path: Path, wait_seconds: float, error: Exception) -> BadInput:
    why = reason(error)
    if why is not None:
        return BadInput(f"{path}: {why}, then run again")
    if not re.match(_BUSY, str(error)):
        return _damaged(path)
    return BadInput(
        f"{path}: still busy after {wait_seconds:.0f} s. Close the program that holds it: {error}"
    )


def is_damage(error: "duckdb.Error") -> bool:
    """Whether a file is damaged, or has other tables than those of `schema`."""
    import duckdb

    kinds = duckdb.IOException, duckdb.InternalError, duckdb.SerializationException
    other_tables = duckdb.CatalogException, duckdb.BinderException
    return type(error) is duckdb.Error or isinstance(error, (*kinds, *other_tables))


def _damaged(path: Path) -> BadInput:
    return BadInput(
        f"{path}: damaged, or not a results database of this version. Move it away and run `llmkt "
        "run CONFIG` again: finished trainings are kept, and a new one is filled from them."
    )


@contextmanager
def _synchronized(remote: Store, read_only: bool) -> Iterator[None]:
    """Fetch the store's file before, and upload this one after it was opened for writing."""
    if read_only:
        _refresh(remote)
        yield
        return
    with data_lock("results"):  # one process of this machine at a time
        _fetch(remote)
        yield
        remote.upload(database_path(), _NAME)
        _seen().write_text(remote.state(_NAME) or "")


def _refresh(remote: Store) -> None:
    """Fetch the store's file if it is another one than was last seen."""
    if _is_behind(remote):
        with data_lock("results"):  # one process of this machine at a time
            _fetch(remote)


def _fetch(remote: Store) -> None:
    if not _is_behind(remote):
        return
    path, state = database_path(), remote.state(_NAME)
    temporary = path.with_name(f".fetching-{_NAME}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not remote.download(_NAME, temporary):
            return
        if path.exists() and not _seen().exists():  # written before there was a store
            path.replace(path.with_name(f"{_NAME}.before-{data_dir().name}"))
        path.with_name(f"{_NAME}.wal").unlink(missing_ok=True)
        temporary.replace(path)
        _seen().write_text(state or "")


def _is_behind(remote: Store) -> bool:
    state = remote.state(_NAME)
    if state is None:
        return False
    return not (database_path().exists() and _seen().exists() and _seen().read_text() == state)


def _seen() -> Path:
    """The file that names the store's version of the database that was fetched last."""
    return data_dir() / f".{_NAME}.seen"
