"""The data folder: immutable artifacts named by their content.

Everything lives under `data_dir()`; nothing else in the project decides on a path there. Where
that is a store (`tasks.storage.object_store`), artifacts are written to it as well, and fetched
from it.
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
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, ConfigDict

from tasks.storage.data_dir import PROJECT_ROOT as PROJECT_ROOT
from tasks.storage.data_dir import contained
from tasks.storage.data_dir import data_dir as data_dir
from tasks.storage.disk_errors import writing
from tasks.storage.object_store import store

TEMPORARY = ".writing-"
"""How names of files begin that are being written, or were when their writer was killed."""

_ROWS_AT_ONCE = 1 << 17
"""Rows that are encoded together; a million lists of 20 would take 0.6 GB for a moment."""
_RECORDED_PACKAGES = ("llmkt-flow", "numpy", "pyarrow", "recbole", "torch", "umap-learn")


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

    path: Annotated[str, AfterValidator(contained)]
    """Relative to the data folder, so that the folder can be moved."""
    sha256: str
    rows: int

    @property
    def file(self) -> Path:
        """The artifact's absolute path; of a store's, where `verify` puts a copy."""
        return data_dir() / self.path

    def verify(self) -> Path:
        """Return the file's path after comparing its sha256 with the one written.

        From a store it is fetched if it is not here yet. What only this machine has left of a
        store's artifacts is put back.

        Raises:
            MissingArtifact: if the file is gone or was altered.
        """
        file, remote = self.file, store()
        if remote is None:
            self._compare(file, str(file))
            return file
        with contextlib.suppress(MissingArtifact):
            self._compare(file, str(file))
            if self.path.startswith("artifacts/"):  # others may be replaced by newer ones
                remote.keep(file, self.path)
            return file
        name = f"{remote.url}/{self.path}"
        with replacing(file) as temporary:
            if not remote.download(self.path, temporary):
                raise MissingArtifact(f"{name} is gone")
            self._compare(temporary, name)
        return file

    def _compare(self, file: Path, name: str) -> None:
        """Raise `MissingArtifact` unless a file, called `name` in errors, holds what was."""
        if not file.is_file():
            raise MissingArtifact(f"{name} is gone")
        found = file_sha256(file)
        if found != self.sha256:
            raise MissingArtifact(f"{name} was altered: sha256 {found}, not {self.sha256}")


def file_sha256(file: Path) -> str:
    """Hash a file of any size: 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mirror(folder: str) -> None:
    """Fetch what is new in a folder of the store, if there is one; nothing here is removed."""
    remote = store()
    for entry in remote.entries(folder) if remote is not None else ():
        file = data_dir() / entry.name
        here = (file.stat().st_size, file.stat().st_mtime) if file.is_file() else None
        if remote is not None and here != (entry.bytes, entry.changed):
            with contextlib.suppress(MissingArtifact), replacing(file) as temporary:
                if not remote.download(entry.name, temporary):
                    raise MissingArtifact(f"{entry.name} is gone")
                os.utime(temporary, (entry.changed, entry.changed))


def discard(file: Path) -> None:
    """Remove a file of the data folder, also from the store, if there is one."""
    file.unlink(missing_ok=True)
    remote = store()
    if remote is not None:
        remote.remove([relative(file)])


def share(file: Path) -> None:
    """Put a file of the data folder into the store, if there is one, under its relative path."""
    remote = store()
    if remote is not None:
        remote.upload(file, relative(file))


def relative(file: Path) -> str:
    """Name a file of the data folder as handles and stores do: `artifacts/split/….parquet`."""
    return file.relative_to(data_dir()).as_posix()


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


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary file that takes the place of `file`, all at once, if the block succeeds.

    Raises:
        BadInput: if the disk refuses.
    """
    with writing(file), new_file(file.parent) as temporary:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(file)


def require_writable() -> None:
    """Refuse (BadInput) to start work whose results the data folder or its store would not take."""
    with writing(data_dir()), new_file(data_dir()) as probe:
        probe.write_bytes(bytes(4096))
    remote = store()
    if remote is not None:
        remote.require_usable()


@contextmanager
def _new_artifact(stage: str, suffix: str) -> Iterator[Path]:
    folder = data_dir() / "artifacts" / stage
    with writing(folder), new_file(folder, suffix) as temporary:
        yield temporary


def _kept(temporary: Path, suffix: str, rows: int = 0) -> Handle:
    """Move a finished artifact to the name that its content digest gives it."""
    remote = store()
    with temporary.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    final = temporary.with_name(f"{sha256[:20]}{suffix}")
    if remote is not None:  # even if it is there: it may have been altered
        remote.upload(temporary, relative(final))
    temporary.chmod(0o644)
    temporary.replace(final)
    return Handle(path=relative(final), sha256=sha256, rows=rows)


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
    with _new_artifact(stage, ".parquet") as path:
        described = table.replace_schema_metadata(metadata)
        pq.write_table(described, path, row_group_size=_ROWS_AT_ONCE, compression="zstd")
        return _kept(path, ".parquet", table.num_rows)


def write_bytes(stage: str, suffix: str, content: bytes, rows: int = 0) -> Handle:
    """Write `content` (model weights, a report) under its digest, like `write_parquet`."""
    with _new_artifact(stage, suffix) as path:
        path.write_bytes(content)
        return _kept(path, suffix, rows)


def write_file(stage: str, suffix: str, source: Path) -> Handle:
    """Take in a file of any size under its digest, like `write_bytes`; copied only if it is new."""
    sha256 = file_sha256(source)
    with contextlib.suppress(MissingArtifact):
        path = f"artifacts/{stage}/{sha256[:20]}{suffix}"
        known = Handle(path=path, sha256=sha256, rows=0)
        known.verify()
        return known
    with _new_artifact(stage, suffix) as copy:
        shutil.copyfile(source, copy)
        return _kept(copy, suffix)


def write_batches(
    stage: str,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch | pa.Table],
    inputs: Mapping[str, Handle] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Handle:
    """Like `write_parquet`, of a table that need not fit into memory; cast to `schema`."""
    described = schema.with_metadata(_metadata(stage, inputs, config))
    rows = 0
    with _new_artifact(stage, ".parquet") as path:
        with pq.ParquetWriter(path, described, compression="zstd") as writer:
            for batch in batches:
                whole = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
                if whole.num_rows:
                    writer.write_table(whole.combine_chunks().cast(schema))
                rows += batch.num_rows
        return _kept(path, ".parquet", rows)


def read_parquet(handle: Handle, columns: list[str] | None = None) -> pa.Table:
    """Verify and read an artifact; see `Handle.verify` for errors."""
    return pq.read_table(handle.verify(), columns=columns)


class Handoff(BaseModel):
    """Base of all hand-offs."""

    model_config = ConfigDict(frozen=True)
