"""The results database: one DuckDB file, which of a store's machines each has a copy of.

DuckDB needs a file system. So who writes takes the store's newest file first and puts the changed
one back, and who reads takes the newest. Two machines that write at the same moment both succeed,
and the file of the later one stays: the other's evaluation no longer finds its rows and is computed
again by its next run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from models.errors import BadInput
from tasks.storage.data_dir import data_dir
from tasks.storage.disk_errors import reason, writing
from tasks.storage.object_store import Store, store

if TYPE_CHECKING:
    import duckdb

DATABASE_WAIT_SECONDS = 120.0
_NAME = "results.duckdb"


def database_path() -> Path:
    """Where the results database is."""
    return data_dir() / _NAME


@contextmanager
def database(
    read_only: bool = False,
    wait_seconds: float = DATABASE_WAIT_SECONDS,
    settings: Mapping[str, bool] | None = None,
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open the results database, waiting while another process holds it.

    Args:
        read_only: refuse to change it.
        wait_seconds: for how long at most.
        settings: DuckDB's own.

    Raises:
        BadInput: if it does not exist (read-only), stays busy, or is no database.
    """
    remote = store()
    if remote is None:
        with _connected(read_only, wait_seconds, settings) as connection:
            yield connection
        return
    with (
        _following(database_path(), remote, read_only),
        _connected(read_only, wait_seconds, settings) as connection,
    ):
        yield connection


def has_database() -> bool:
    """Whether there is a results database, here or in the store."""
    remote = store()
    if remote is not None:
        _refresh(database_path(), remote)
    return database_path().exists()


@contextmanager
def _connected(
    read_only: bool, wait_seconds: float, settings: Mapping[str, bool] | None
) -> Iterator["duckdb.DuckDBPyConnection"]:
    import duckdb  # not above: worker processes need the rest of this module, but no database

    path = database_path()
    if read_only and not path.exists():
        raise BadInput(f"{path} does not exist: run `llmkt run CONFIG` first")
    if not read_only:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    connect = retry(
        retry=retry_if_exception_message(match=r"(?is).*lock.*"),
        stop=stop_after_delay(wait_seconds),
        wait=wait_random(0.1, 0.5),
        reraise=True,
    )(duckdb.connect)
    try:
        connection = connect(str(path), read_only=read_only, config=dict(settings or {}))
    except duckdb.IOException as error:
        if "not a valid DuckDB" in str(error):
            raise BadInput(
                f"{path} is not a DuckDB database: move it away and run `llmkt run CONFIG` again"
            ) from error
        why = reason(error)
        if why is not None:
            raise BadInput(f"{path}: {why}, then run again") from error
        raise BadInput(
            f"{path} could not be opened within {wait_seconds:.0f} s, "
            f"close the program that holds it: {error}"
        ) from error
    try:
        with writing(path):
            yield connection
    finally:
        connection.close()


@contextmanager
def _following(path: Path, remote: Store, read_only: bool) -> Iterator[None]:
    """Bring the file up to date, and, unless it is only read, the store's afterwards.

    Args:
        path: this machine's file.
        remote: the store.
        read_only: whether nothing is changed.
    """
    if read_only:
        _refresh(path, remote)
        yield
        return
    with _alone():
        _pull(path, remote)
        yield
        remote.upload(path, _NAME)
        _seen(path).write_text(remote.state(_NAME) or "")


def create_tables(connection: "duckdb.DuckDBPyConnection") -> None:
    """Create the tables and views that are not there yet (`sql/schema.sql`)."""
    connection.execute((Path(__file__).parent / "sql" / "schema.sql").read_text())


def _refresh(path: Path, remote: Store) -> None:
    """Replace the file by the store's, if that is another one than was last seen."""
    if _is_behind(path, remote):
        with _alone():
            _pull(path, remote)


def _pull(path: Path, remote: Store) -> None:
    if not _is_behind(path, remote):
        return
    state = remote.state(_NAME)
    temporary = path.with_name(f".fetching-{_NAME}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not remote.download(_NAME, temporary):
            return
        if path.exists() and not _seen(path).exists():  # written before there was a store
            path.replace(path.with_name(f"{_NAME}.before-{data_dir().name}"))
        path.with_name(f"{_NAME}.wal").unlink(missing_ok=True)
        temporary.replace(path)
        _seen(path).write_text(state or "")


def _is_behind(path: Path, remote: Store) -> bool:
    state = remote.state(_NAME)
    if state is None:
        return False
    seen = _seen(path)
    return not path.exists() or not seen.exists() or seen.read_text() != state


def _seen(path: Path) -> Path:
    """Which of the store's files this one follows."""
    return path.with_name(f".{_NAME}.seen")


@contextmanager
def _alone() -> Iterator[None]:
    """One process of this machine at a time takes and puts back."""
    folder = data_dir() / "locks"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "results.lock"):
        yield
