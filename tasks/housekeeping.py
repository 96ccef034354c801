"""Housekeeping: removes what no result that is kept refers to.

Mark and sweep. The roots are Prefect's results that are young enough or among the newest of their
stage, the manifests of what is published, and the records of what was downloaded; they keep the
artifacts whose handles they hold.
Databases, answers, embeddings, batches and quarantine are never looked at.
"""

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from models.errors import BadInput
from tasks.disk import writing
from tasks.storage import TEMPORARY, data_dir

_QUARANTINE = "quarantine"
"""The stage whose artifacts, rows that were refused, are for people to look at."""

_DAY = 24 * 60 * 60.0
_HANDLE = re.compile(r"artifacts/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+|reports/[^\"\\]+\.html")
_RECORD = re.compile(r"(?P<stage>.+)-v[0-9]+-[0-9a-f]{32}")


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
    root = data_dir()
    _require_quiet(root)
    now = time.time()
    kept, old = _results(root, now - keep_days * _DAY, keep_count)
    records = [*root.glob("published/**/manifest.json"), *root.glob("downloads/*.json")]
    live = set(_references([*kept, *records]))
    removed = [_removal(root, path, "result is old") for path in old]
    removed += _unreferenced(root, live, now - _DAY)
    removed += _leftovers(root, {path.name for path in kept}, now, keep_days)
    if not dry_run:
        with writing(root):
            for removal in removed:
                (root / removal.path).unlink(missing_ok=True)
    return Swept(dry_run=dry_run, removed=removed)


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


def _results(root: Path, since: float, keep_count: int) -> tuple[list[Path], list[Path]]:
    """Prefect's results that stay and those that go."""
    by_stage: dict[str, list[Path]] = {}
    for path in _files(root / "cache"):
        match = _RECORD.fullmatch(path.name)
        if match:
            by_stage.setdefault(match["stage"], []).append(path)
    kept: list[Path] = []
    old: list[Path] = []
    for paths in by_stage.values():
        paths.sort(key=_modified, reverse=True)
        for place, path in enumerate(paths):
            young = place < keep_count or _modified(path) >= since
            (kept if young else old).append(path)
    return kept, old


def _references(records: Iterable[Path]) -> Iterator[str]:
    """Paths of everything that the records name, and the artifacts that those were made from."""
    for record in records:
        # A result is JSON inside JSON: the slashes of a path are never escaped.
        yield from _HANDLE.findall(record.read_text(encoding="utf-8"))


def _unreferenced(root: Path, live: set[str], before: float) -> list[Removal]:
    """Artifacts and reports that nothing refers to; the last day's may be about to be."""
    artifacts = [path for path in _files(root / "artifacts") if path.parent.name != _QUARANTINE]
    candidates = [*artifacts, *(root / "reports").glob("*.html")]
    return [
        _removal(root, path, "no result refers to it")
        for path in sorted(candidates)
        if not path.name.startswith(TEMPORARY)
        and path.relative_to(root).as_posix() not in live
        and _modified(path) < before
    ]


def _leftovers(root: Path, kept: set[str], now: float, keep_days: float) -> list[Removal]:
    """What killed runs leave: temporary files, progress, checkpoints that are done or forgotten."""
    found = [
        _removal(root, path, "a killed run was writing it")
        for part in ("artifacts", "cache", "checkpoints", "reports", "progress")
        for path in _files(root / part)
        if path.name.startswith(TEMPORARY) and _modified(path) < now - _DAY
    ]
    found += [
        _removal(root, path, "a killed run was reading into it")
        for path in _files(root / "scratch")
        if _modified(path) < now - _DAY
    ]
    found += [
        _removal(root, path, "its run has ended") for path in (root / "progress").glob("*.json")
    ]
    for path in (root / "checkpoints").glob("*.pt"):
        if path.stem in kept:
            found.append(_removal(root, path, "its training is finished"))
        elif _modified(path) < now - keep_days * _DAY:
            found.append(_removal(root, path, "its training was given up"))
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _modified(path: Path) -> float:
    return path.stat().st_mtime


def _removal(root: Path, path: Path, why: str) -> Removal:
    return Removal(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, why=why)
