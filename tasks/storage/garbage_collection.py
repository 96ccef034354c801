"""Housekeeping: removes what no result that is kept refers to.

Mark and sweep. The roots are Prefect's results that are young enough or among the newest of their
stage, the manifests of what is published, and the records of what was downloaded; they keep the
artifacts whose handles they hold.
Databases, answers, embeddings, batches and quarantine are never looked at. Of a store, its objects
are swept and the copies that this machine has of them.
"""

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from models.errors import BadInput
from tasks.storage.artifacts import TEMPORARY, data_dir
from tasks.storage.disk_errors import writing
from tasks.storage.object_store import Entry, Store, store

_QUARANTINE = "quarantine"
"""The stage whose artifacts, rows that were refused, are for people to look at."""

_DAY = 24 * 60 * 60.0
_HANDLE = re.compile(r"artifacts/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+|reports/[^\"\\]+\.html")
_RESULT = re.compile(r"cache/(?P<stage>[^/]+)-v[0-9]+-[0-9a-f]{32}")
_RECORDS = re.compile(r"published/.+/manifest\.json|downloads/[^/]+\.json")
_SWEPT = re.compile(rf"artifacts/(?!{_QUARANTINE}/).+|reports/[^/]+\.html")


class Removal(BaseModel):
    """One file that goes, or would go."""

    path: str
    bytes: int
    why: str


class Swept(BaseModel):
    """What housekeeping removed, or would remove."""

    dry_run: bool
    removed: list[Removal]

    @property
    def bytes(self) -> int:
        """Altogether."""
        return sum(removal.bytes for removal in self.removed)


def sweep(keep_days: float, keep_count: int, dry_run: bool = False) -> Swept:
    """Remove old results, and artifacts, checkpoints and reports that none of the rest needs.

    Args:
        keep_days: results younger than this stay.
        keep_count: as many of each stage's newest results stay, however old.
        dry_run: only say what would go.

    Raises:
        BadInput: while a run is at work, or if files cannot be removed.
    """
    root, remote, now = data_dir(), store(), time.time()
    _require_quiet(root)
    here = _entries(root)
    there = here if remote is None else remote.entries("")
    kept, old = _results(there, now - keep_days * _DAY, keep_count)
    records = [*kept, *(of for of in there if _RECORDS.fullmatch(of.name))]
    live = set(_references(records, root, remote))
    removed = [_removal(of, "result is old") for of in old]
    removed += [
        _removal(of, "no result refers to it") for of in _unreferenced(there, live, now - _DAY)
    ]
    local = _leftovers(root, {Path(of.name).name for of in kept}, now, keep_days)
    if remote is not None:
        copies = _unreferenced(here, live, now - _DAY)
        local += [_removal(of, "a copy that no result refers to") for of in copies]
    if not dry_run:
        with writing(root):
            for removal in [*(removed if remote is None else ()), *local]:
                (root / removal.path).unlink(missing_ok=True)
        if remote is not None:
            remote.remove([removal.path for removal in removed])
    return Swept(dry_run=dry_run, removed=[*removed, *local])


def _require_quiet(root: Path) -> None:
    """Refuse while any lock is held: a run at work refers to artifacts that no result names yet."""
    for path in sorted((root / "locks").glob("*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(
                f"a run is at work in {root} (it holds {path.name}); try again when it has ended"
            ) from None
        lock.release()


def _entries(root: Path) -> list[Entry]:
    """Files of the folders that can be swept, or that say what must stay."""
    return [
        Entry(path.relative_to(root).as_posix(), path.stat().st_size, _modified(path))
        for part in ("artifacts", "cache", "downloads", "published", "reports")
        for path in sorted(_files(root / part))
    ]


def _results(
    entries: Iterable[Entry], since: float, keep_count: int
) -> tuple[list[Entry], list[Entry]]:
    """Prefect's results that stay and those that go."""
    by_stage: dict[str, list[Entry]] = {}
    for entry in entries:
        match = _RESULT.fullmatch(entry.name)
        if match:
            by_stage.setdefault(match["stage"], []).append(entry)
    kept: list[Entry] = []
    old: list[Entry] = []
    for of_stage in by_stage.values():
        of_stage.sort(key=lambda entry: entry.changed, reverse=True)
        for place, entry in enumerate(of_stage):
            young = place < keep_count or entry.changed >= since
            (kept if young else old).append(entry)
    return kept, old


def _references(records: Iterable[Entry], root: Path, remote: Store | None) -> Iterator[str]:
    """Paths of everything that the records name, and the artifacts that those were made from."""
    for record in records:
        content = remote.read(record.name) if remote else (root / record.name).read_bytes()
        # A result is JSON inside JSON: the slashes of a path are never escaped.
        yield from _HANDLE.findall((content or b"").decode())


def _unreferenced(entries: Iterable[Entry], live: set[str], before: float) -> list[Entry]:
    """Artifacts and reports that nothing refers to; the last day's may be about to be."""
    return [
        entry
        for entry in entries
        if _SWEPT.fullmatch(entry.name)
        and not Path(entry.name).name.startswith(TEMPORARY)
        and entry.name not in live
        and entry.changed < before
    ]


def _leftovers(root: Path, kept: set[str], now: float, keep_days: float) -> list[Removal]:
    """What killed runs leave: temporary files, progress, checkpoints that are done or forgotten."""
    found = [
        _left(root, path, "a killed run was writing it")
        for part in ("artifacts", "cache", "checkpoints", "reports", "progress")
        for path in _files(root / part)
        if path.name.startswith(TEMPORARY) and _modified(path) < now - _DAY
    ]
    found += [
        _left(root, path, "a killed run was reading into it")
        for path in _files(root / "scratch")
        if _modified(path) < now - _DAY
    ]
    found += [_left(root, path, "its run has ended") for path in (root / "progress").glob("*.json")]
    for path in (root / "checkpoints").glob("*.pt"):
        if path.stem in kept:
            found.append(_left(root, path, "its training is finished"))
        elif _modified(path) < now - keep_days * _DAY:
            found.append(_left(root, path, "its training was given up"))
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _removal(of: Entry, why: str) -> Removal:
    return Removal(path=of.name, bytes=of.bytes, why=why)


def _left(root: Path, path: Path, why: str) -> Removal:
    return Removal(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, why=why)
