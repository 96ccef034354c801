"""The data folder: immutable artifacts named by their content, and the DuckDB file.

Everything lives under `data_dir()`; nothing else in the project decides on a path there.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from models.errors import BadInput
from tasks.disk import reason, writing

if TYPE_CHECKING:
    import duckdb

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DATABASE_WAIT_SECONDS = 120.0
TEMPORARY = ".writing-"
"""How names of files begin that are being written, or were when their writer was killed."""

_RECORDED_PACKAGES = ("llmkt-flow", "numpy", "pyarrow", "recbole", "torch", "umap-learn")


def data_dir() -> Path:
    """The data folder: the environment variable LLMKT_DATA_DIR, else `data/` in the project."""
    return Path(os.environ.get("LLMKT_DATA_DIR") or PROJECT_ROOT / "data").expanduser().resolve()


def database_path() -> Path:
    """Where the results database is."""
    return data_dir() / "results.duckdb"


class MissingArtifact(RuntimeError):
    """The file behind a handle is gone or no longer what was written."""


class Verifiable(BaseModel):
    """A stage's result that stands for something that can vanish."""

    def verify(self) -> object:
        """Raise `MissingArtifact` if what this stands for is gone or was altered."""
        raise NotImplementedError


class Handle(Verifiable):
    """A small reference to an immutable artifact: what tasks hand each other instead of data."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Relative to the data folder, so that the folder can be moved."""
    sha256: str
    rows: int

    @property
    def file(self) -> Path:
        """The artifact's absolute path."""
        return data_dir() / self.path

    def verify(self) -> Path:
        """Return the file's path after comparing its sha256 with the one written.

        Raises:
            MissingArtifact: if the file is gone or was altered.
        """
        if not self.file.is_file():
            raise MissingArtifact(f"{self.file} is gone")
        with self.file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != self.sha256:
            raise MissingArtifact(f"{self.file} was altered: sha256 {found}, not {self.sha256}")
        return self.file


@contextmanager
def new_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """A temporary file in `folder`, to be renamed into place; gone if it was not."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY, suffix=suffix)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def require_writable() -> None:
    """Refuse to start work whose results could not be stored.

    Raises:
        BadInput: if nothing can be written to the data folder.
    """
    with writing(data_dir()), new_file(data_dir()) as probe:
        probe.write_bytes(bytes(4096))


@contextmanager
def _new_artifact(stage: str, suffix: str) -> Iterator[tuple[Path, list[Handle]]]:
    """Yield a temporary path to write to and a list that receives the finished handle."""
    folder = data_dir() / "artifacts" / stage
    with writing(folder), new_file(folder, suffix) as temporary:
        result = list[Handle]()
        yield temporary, result
        with temporary.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        final = folder / f"{sha256[:20]}{suffix}"
        temporary.chmod(0o644)
        temporary.replace(final)
        result.append(Handle(path=final.relative_to(data_dir()).as_posix(), sha256=sha256, rows=0))


@cache
def versions() -> dict[str, str]:
    """Of the packages that decide results."""
    return {package: version(package) for package in _RECORDED_PACKAGES}


def _metadata(
    stage: str, inputs: Mapping[str, Handle] | None, config: Mapping[str, Any] | None
) -> dict[bytes, str]:
    record = {
        "stage": stage,
        "inputs": {name: handle.sha256 for name, handle in (inputs or {}).items()},
        "config": dict(config or {}),
        "versions": versions(),
    }
    return {b"llmkt": json.dumps(record, sort_keys=True)}


def write_parquet(
    stage: str,
    table: pa.Table,
    inputs: Mapping[str, Handle] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Handle:
    """Write `table` once, under its own content digest, by temporary file and atomic rename.

    The file's key-value metadata carries stage, digests of the inputs, configuration and
    package versions as JSON under `llmkt`; no clock, so that equal work gives equal files.
    """
    metadata = {**(table.schema.metadata or {}), **_metadata(stage, inputs, config)}
    with _new_artifact(stage, ".parquet") as (path, result):
        pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")
    return result[0].model_copy(update={"rows": table.num_rows})


def write_bytes(stage: str, suffix: str, content: bytes, rows: int = 0) -> Handle:
    """Write `content` (model weights, a report) under its digest, like `write_parquet`."""
    with _new_artifact(stage, suffix) as (path, result):
        path.write_bytes(content)
    return result[0].model_copy(update={"rows": rows})


def write_file(stage: str, suffix: str, source: Path) -> Handle:
    """Take in a file of any size under its digest, like `write_bytes`; copied only if it is new."""
    with source.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    there = data_dir() / "artifacts" / stage / f"{sha256[:20]}{suffix}"
    known = Handle(path=there.relative_to(data_dir()).as_posix(), sha256=sha256, rows=0)
    with contextlib.suppress(MissingArtifact):
        known.verify()
        return known
    with _new_artifact(stage, suffix) as (path, result):
        shutil.copyfile(source, path)
    return result[0]


def write_batches(
    stage: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    inputs: Mapping[str, Handle] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Handle:
    """Like `write_parquet`, of a table that need not fit into memory; cast to `schema`."""
    rows = 0
    with _new_artifact(stage, ".parquet") as (path, result):
        whole = schema.with_metadata(_metadata(stage, inputs, config))
        with pq.ParquetWriter(path, whole, compression="zstd") as writer:
            for batch in batches:
                writer.write_table(pa.Table.from_batches([batch]).cast(schema))
                rows += batch.num_rows
    return result[0].model_copy(update={"rows": rows})


def read_parquet(handle: Handle, columns: list[str] | None = None) -> pa.Table:
    """Verify and read an artifact; see `Handle.verify` for errors."""
    return pq.read_table(handle.verify(), columns=columns)


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
