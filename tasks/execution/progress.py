"""Progress of long stages: a bar in the terminal and a progress artifact in Prefect.

A stage may run in another process than the terminal, so it leaves its state in a small file,
which both the terminal and the Prefect artifact follow.
"""

import contextvars
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from tasks.storage.artifacts import data_dir, new_file
from tasks.storage.disk_errors import writing

_SECONDS_BETWEEN_BARS = 0.3
_SECONDS_BETWEEN_ARTIFACTS = 3.0


@dataclass
class Tracker:
    """Takes the number of steps done; may be called from another process, at any rate."""

    description: str
    total: int
    name: str
    """Of the file, in the data folder, which another machine may see at another path."""
    _written_at: float = 0.0

    def __call__(self, done: int) -> None:
        """Note that `done` steps are done, unless a note was left a moment ago."""
        now = time.monotonic()
        if now - self._written_at < _SECONDS_BETWEEN_BARS and done < self.total:
            return
        self._written_at = now
        state = {"description": self.description, "done": done, "total": self.total}
        spool = _folder() / self.name
        with writing(spool), new_file(spool.parent) as temporary:
            temporary.write_text(json.dumps(state))
            temporary.replace(spool)


def _folder() -> Path:
    return data_dir() / "progress"


def _read(spool: Path) -> tuple[str, int, int] | None:
    try:
        state = json.loads(spool.read_bytes())
        return str(state["description"]), int(state["done"]), int(state["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _beside(function: Callable[..., None], *args: object) -> Iterator[None]:
    """Run a function in a thread; its last argument is an event that is set after the block."""
    finished = threading.Event()
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(function, *args, finished), daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


@contextmanager
def track(description: str, total: int) -> Iterator[Tracker]:
    """Follow a stage of `total` steps; yields the tracker that it reports its steps to."""
    spool = _folder() / f"{os.getpid()}-{uuid.uuid4().hex}.json"
    try:
        with _beside(_publish, description, spool):
            yield Tracker(description, total, spool.name)
    finally:
        spool.unlink(missing_ok=True)


def _publish(description: str, spool: Path, finished: threading.Event) -> None:
    """Keep a Prefect progress artifact up to date until the stage has finished."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact
    from prefect.context import TaskRunContext
    from slugify import slugify

    if TaskRunContext.get() is None:
        return
    artifact = create_progress_artifact(0.0, key=slugify(description), description=description)
    assert isinstance(artifact, uuid.UUID)
    ended = False
    while not ended:
        ended = finished.wait(_SECONDS_BETWEEN_ARTIFACTS)
        state = _read(spool)
        if state is not None:
            _, done, total = state
            update_progress_artifact(artifact, min(100.0, 100.0 * done / max(total, 1)))


@contextmanager
def bars(console: Console) -> Iterator[None]:
    """Show a bar for every stage that is being tracked, in this process or another."""
    for stale in _folder().glob("*.json"):
        stale.unlink(missing_ok=True)
    text = TextColumn("{task.description}", markup=False)
    columns = text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as display:
        with _beside(_follow, display, _folder()):
            yield


def _follow(display: Progress, folder: Path, finished: threading.Event) -> None:
    shown: dict[Path, TaskID] = {}
    while not finished.wait(_SECONDS_BETWEEN_BARS):
        states = {spool: _read(spool) for spool in folder.glob("*.json")}
        for spool, state in states.items():
            if state is None:
                continue
            description, done, total = state
            if spool not in shown:
                shown[spool] = display.add_task(description, total=total)
            display.update(shown[spool], completed=done)
        for spool in set(shown) - set(states):
            display.remove_task(shown.pop(spool))


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return the run's logger, or outside a run one that needs no Prefect."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("llmkt")
