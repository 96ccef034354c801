"""The published set, written: versions that are never altered, and a link to the one that counts.

A version is written to a folder beside it, flushed to disk and renamed; then the link is replaced
by one system call. What is interrupted leaves everything as it was; see
`tasks.publishing.manifest`.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from models.errors import BadInput
from tasks.publishing.manifest import (
    CURRENT,
    MANIFEST,
    File,
    Manifest,
    current,
    folder_of,
    read,
    versions,
)
from tasks.publishing.store_sync import point, put, remove
from tasks.storage.artifacts import Handle, MissingArtifact, data_dir

_WRITING = ".writing-"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class NewVersion:
    """What becomes a version: its manifest, still without files, and the files by name."""

    manifest: Manifest
    sources: Mapping[str, Handle]


class Overtaken(RuntimeError):
    """Another version became current since the challenger was judged against the champion."""


def publish(new: NewVersion) -> Manifest:
    """Write a version and let it count, all at once; on any failure everything stays as it was.

    Raises:
        Overtaken: if the current version is no longer the one that the new one was judged against.
        MissingArtifact: if a source is gone or was altered.
        OSError: if the disk is full or read-only.
    """
    experiment = new.manifest.experiment
    folder = folder_of(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = _there_already(new.manifest) or _written(new, folder)
    put(manifest.folder)
    with _swapping(experiment):
        now = current(experiment)
        if (now.version if now else None) not in (manifest.previous, manifest.version):
            raise Overtaken(f"{now.version if now else 'nothing'} has become current meanwhile")
        _point(folder, manifest.version)
    return manifest


def _there_already(wanted: Manifest) -> Manifest | None:
    """The same version as an earlier night left it, if it is whole."""
    try:
        found = read(wanted.experiment, wanted.version)
        found.verify()
    except (BadInput, MissingArtifact):
        return None
    return found


def _written(new: NewVersion, folder: Path) -> Manifest:
    """The version's folder under its final name, flushed to disk."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_WRITING))
    try:
        files = {name: _copy(of, temporary / name) for name, of in new.sources.items()}
        manifest = new.manifest.model_copy(update={"files": files})
        text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        with (temporary / MANIFEST).open("w", encoding="utf-8") as stream:
            stream.write(text)
            _flush(stream.fileno())
        for inner in (*temporary.rglob("*"), temporary):
            if inner.is_dir():
                inner.chmod(0o755)
                _flush_folder(inner)
        if manifest.folder.exists():  # not whole, see _there_already
            shutil.rmtree(manifest.folder)
        temporary.rename(manifest.folder)
        _flush_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _copy(source: Handle, target: Path) -> File:
    """Copy an artifact and flush it to disk."""
    path = source.verify()
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("rb") as of, target.open("wb") as to:
        while chunk := of.read(_CHUNK):
            digest.update(chunk)
            to.write(chunk)
        size = to.tell()
        to.flush()
        _flush(to.fileno())
    return File(sha256=digest.hexdigest(), bytes=size, rows=source.rows)


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    """A rename counts only once the folder that it changed is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(folder: Path, version: str) -> None:
    """Replace the link in one step, the store's first: this machine follows it."""
    point(folder, version)
    temporary = folder / f"{_WRITING}{CURRENT}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(version)
    temporary.replace(folder / CURRENT)
    _flush_folder(folder)


@contextmanager
def _swapping(experiment: str) -> Iterator[None]:
    """Between looking at the current version and replacing it, nobody else replaces it."""
    locks = data_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"published-{experiment}.lock"):
        yield


def rollback(experiment: str) -> tuple[Manifest, Manifest]:
    """Let the version count that the current one replaced.

    Returns:
        The version that counted, and the one that counts now.

    Raises:
        BadInput: if there is none to go back to, or it was altered.
    """
    with _swapping(experiment):
        now = current(experiment)
        if now is None:
            raise BadInput(f"{experiment} has no published version")
        if now.previous is None or not (folder_of(experiment) / now.previous).is_dir():
            raise BadInput(f"{now.version} of {experiment} has no version before it to go back to")
        before = read(experiment, now.previous)
        before.verify()
        _point(folder_of(experiment), before.version)
    return now, before


def prune(experiment: str, keep: int) -> list[str]:
    """Remove the oldest versions beyond `keep`, and what a killed night left half written.

    Never the current one, nor the one that a rollback leads to.

    Returns:
        The versions removed.
    """
    folder = folder_of(experiment)
    with _swapping(experiment):
        for left in folder.glob(f"{_WRITING}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
        now = current(experiment)
        if now is None:
            return []
        safe = {now.version, now.previous}
        rest = [of for of in versions(experiment) if of.version not in safe]
        removed = [of.version for of in rest[max(keep - len(safe - {None}), 0) :]]
        for version in removed:
            remove(folder / version)
            shutil.rmtree(folder / version)
    return removed
