"""The published set, written: versions that never change, and a link to the current one.

A version is written to a folder beside it, flushed to disk and renamed; then the link is replaced
by one system call. An interruption leaves everything as it was; see `tasks.publishing.manifest`.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
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
    link_to,
    read,
    versions,
    waiting,
)
from tasks.storage.artifacts import TEMPORARY, Handle, MissingArtifact, relative, share
from tasks.storage.data_dir import data_lock
from tasks.storage.object_store import store


class Overtaken(RuntimeError):
    """Another version became current since the challenger was judged against the champion."""


def publish(new: Manifest, sources: Mapping[str, Handle], swap: bool = True) -> Manifest:
    """Write a version and make it current, all at once; any failure leaves everything as it was.

    Without `swap` it only lies there whole, for `approve`.

    Raises:
        Overtaken: if the current version is no longer the one that the new one was judged against.
        MissingArtifact: if a source is gone or was altered.
        OSError: if the disk is full or read-only.
    """
    folder = folder_of(new.experiment)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = _found_whole(new) or _written(new, sources, folder)
    for file in sorted(manifest.folder.rglob("*"), key=lambda path: path.name == MANIFEST):
        if file.is_file():
            share(file)
    with _swapping(new.experiment):
        now = current(new.experiment)
        if (now.version if now else None) not in (manifest.previous, manifest.version):
            raise Overtaken(f"{now.version if now else 'nothing'} has become current meanwhile")
        if swap:
            _point(folder, manifest.version)
    return manifest


def _found_whole(wanted: Manifest) -> Manifest | None:
    """The same version as an earlier night left it, if it is whole."""
    try:
        found = read(wanted.experiment, wanted.version)
        found.verify()
    except (BadInput, MissingArtifact):
        return None
    return found


def _written(new: Manifest, sources: Mapping[str, Handle], folder: Path) -> Manifest:
    """The version's folder under its final name, flushed to disk."""
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=TEMPORARY))
    try:
        files = {name: _copy(source, temporary / name) for name, source in sources.items()}
        manifest = new.model_copy(update={"files": files})
        (temporary / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        _flush(temporary / MANIFEST)
        for inner in (*temporary.rglob("*"), temporary):
            if inner.is_dir():
                inner.chmod(0o755)
                _flush(inner)
        if manifest.folder.exists():  # not whole, see _found_whole
            shutil.rmtree(manifest.folder)
        temporary.rename(manifest.folder)
        _flush(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _copy(source: Handle, target: Path) -> File:
    """Copy an artifact and flush it to disk."""
    path = source.verify()
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    _flush(target)
    return File(sha256=source.sha256, bytes=target.stat().st_size, rows=source.rows)


def _flush(path: Path) -> None:
    """Flush a file, or a folder: a rename holds only once the folder that it changed is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(folder: Path, version: str) -> None:
    """Replace the link in one step, the store's first: this machine follows it."""
    remote = store()
    if remote is not None:
        remote.write(relative(folder / CURRENT), version.encode())
    link_to(folder / CURRENT, version)
    _flush(folder)


def _swapping(experiment: str) -> FileLock:
    """Keep others from replacing the current version between a look at it and its replacement."""
    return data_lock(f"published-{experiment}")


def approve(experiment: str, version: str) -> tuple[Manifest, Manifest]:
    """Make a version current that waits for approval; returns as `rollback`.

    Raises:
        BadInput: if it does not wait for one, or was judged against another than the current one.
        MissingArtifact: if it was altered.
    """
    with _swapping(experiment):
        now = current(experiment)
        able = {kept.version: kept for kept in waiting(now)} if now else {}
        new = able.get(version)
        if now is None or new is None:
            raise BadInput(
                f"{experiment}: {version} does not wait for approval against the current version. "
                "Choose another one from `llmkt champion show`, or wait for the next night."
            )
        new.verify()
        _point(folder_of(experiment), version)
    return now, new


def rollback(experiment: str) -> tuple[Manifest, Manifest]:
    """Make the version current again that the current one replaced.

    Returns:
        The version that was current, and the one that is current now.

    Raises:
        BadInput: if there is none to go back to.
        MissingArtifact: if it was altered.
    """
    with _swapping(experiment):
        now = current(experiment)
        if now is None:
            raise BadInput(f"{experiment}: no version is published. Run `llmkt nightly` first.")
        if now.previous is None or not (folder_of(experiment) / now.previous).is_dir():
            raise BadInput(
                f"{experiment}: {now.version} has no version before it to go back to. Publish "
                "another with `llmkt nightly`."
            )
        before = read(experiment, now.previous)
        before.verify()
        _point(folder_of(experiment), before.version)
    return now, before


def prune(experiment: str, keep: int) -> list[str]:
    """Remove the oldest versions beyond `keep`, and folders that a killed night left half written.

    Never the current one, nor the one that a rollback leads to.

    Returns:
        The versions removed.
    """
    folder, remote = folder_of(experiment), store()
    with _swapping(experiment):
        for left in folder.glob(f"{TEMPORARY}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
        now = current(experiment)
        if now is None:
            return []
        safe = {now.version, now.previous, now.anchor}
        rest = [kept.version for kept in versions(experiment) if kept.version not in safe]
        removed = rest[max(keep - len(safe - {None}), 0) :]
        for version in removed:
            if remote is not None:
                names = [entry.name for entry in remote.entries(relative(folder / version))]
                # The manifest first: half a version is none.
                remote.remove(sorted(names, key=lambda name: not name.endswith(MANIFEST)))
            shutil.rmtree(folder / version)
    return removed
