"""Housekeeping: removes what no result that is kept refers to.

Mark and sweep. The roots are Prefect's results that are young enough or among the newest of their
stage, the manifests of what is published, and the records of downloads; they keep the artifacts
whose handles they hold. Databases, answers, embeddings, batches and quarantine stay. Of a store,
its objects are swept and the copies that this machine has of them.
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


_FOLDERS = (
    "artifacts",
    "cache",
    "checkpoints",
    "downloads",
    "progress",
    "published",
    "reports",
    "scratch",
)


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

    Results younger than `keep_days` stay, and each stage's `keep_count` newest, however old.

    Raises:
        BadInput: while a run is at work, or if files cannot be removed.
    """
    root, remote, now = data_dir(), store(), time.time()
    _require_quiet(root)
    here = _entries(root)
    there = here if remote is None else remote.entries("")
    kept, old = _results(there, now - keep_days * _DAY, keep_count)
    records = [*kept, *(entry for entry in there if _RECORDS.fullmatch(entry.name))]
    live = set(_references(records, root, remote))
    removed = [_removal(entry, "result is old") for entry in old]
    unreferenced = _unreferenced(there, live, now - _DAY)
    removed += [_removal(entry, "no result refers to it") for entry in unreferenced]
    local = _leftovers(here, {Path(entry.name).name for entry in kept}, now, keep_days * _DAY)
    if remote is not None:
        copies = _unreferenced(here, live, now - _DAY)
        local += [_removal(entry, "a copy that no result refers to") for entry in copies]
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
                f"a run is at work in {root} (it holds {path.name}). Try again when it has ended."
            ) from None
        lock.release()


def _entries(root: Path) -> list[Entry]:
    """Files of the folders that can be swept, or that say what must stay."""
    return [
        Entry(path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime)
        for folder in _FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
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
    for results in by_stage.values():
        results.sort(key=lambda entry: entry.changed, reverse=True)
        for place, entry in enumerate(results):
            young = place < keep_count or entry.changed >= since
            (kept if young else old).append(entry)
    return kept, old


def _references(records: Iterable[Entry], root: Path, remote: Store | None) -> Iterator[str]:
    """Paths of everything that the records name, and the artifacts that those were made from."""
    for record in records:
        content = remote.read(record.name) if remote else (root / record.name).read_bytes()
        # A result is JSON inside JSON: the slashes of a path are never escaped.
        yield from _HANDLE.findall((content or b"").decode(errors="replace"))


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


def _leftovers(
    here: Iterable[Entry], kept: set[str], now: float, keep_seconds: float
) -> list[Removal]:
    """What killed runs leave: temporary files, progress, checkpoints that are done or forgotten."""
    found = []
    for entry in here:
        path, age = Path(entry.name), now - entry.changed
        folder, why = path.parts[0], None
        if folder == "scratch":
            why = "a killed run was reading into it" if age > _DAY else None
        elif path.name.startswith(TEMPORARY):
            why = "a killed run was writing it" if age > _DAY else None
        elif folder == "progress" and path.suffix == ".json":
            why = "its run has ended"
        elif folder == "checkpoints" and path.suffix == ".pt":
            why = "its training was given up" if age > keep_seconds else None
            why = "its training is finished" if path.stem in kept else why
        if why is not None:
            found.append(_removal(entry, why))
    return found


def _removal(entry: Entry, why: str) -> Removal:
    return Removal(path=entry.name, bytes=entry.bytes, why=why)
