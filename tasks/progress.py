"""Progress of long stages: a bar in the terminal and a progress artifact in Prefect.

A stage may run in another process than the terminal, so `track` leaves its state in a small
file that `bars` reads; an interrupted stage's file goes with the next display.
"""

import contextvars
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from slugify import slugify

from tasks.storage import data_dir

_SECONDS_BETWEEN_BARS = 0.3
_SECONDS_BETWEEN_ARTIFACTS = 3.0


def _folder() -> Path:
    return data_dir() / "progress"


@contextmanager
def track(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Follow a stage of `total` steps; yields a function that takes the number of steps done.

    Reporting happens beside the work, at most a few times a second, whatever the step rate.
    """
    done = 0
    finished = threading.Event()

    def report(value: int) -> None:
        nonlocal done
        done = value

    def publish() -> None:
        _folder().mkdir(parents=True, exist_ok=True)
        spool = _folder() / f"{os.getpid()}-{uuid.uuid4().hex}.json"
        artifact = _create_artifact(description)
        waited, ended = 0.0, False
        while not ended:
            ended = finished.wait(_SECONDS_BETWEEN_BARS)
            waited += _SECONDS_BETWEEN_BARS
            state = {"description": description, "done": done, "total": total}
            temporary = spool.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            temporary.replace(spool)
            if artifact and total and (ended or waited >= _SECONDS_BETWEEN_ARTIFACTS):
                update_progress_artifact(artifact, min(100.0, 100.0 * done / total))
                waited = 0.0
        spool.unlink(missing_ok=True)

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(publish,), daemon=True, name="progress"
    )
    thread.start()
    try:
        yield report
    finally:
        finished.set()
        thread.join()


def _create_artifact(description: str) -> uuid.UUID | None:
    if TaskRunContext.get() is None:
        return None
    created = create_progress_artifact(
        progress=0.0, key=slugify(description), description=description
    )
    assert isinstance(created, uuid.UUID)
    return created


@contextmanager
def bars(console: Console) -> Iterator[None]:
    """Show a bar for every stage that is being tracked, in this process or another."""
    for stale in _folder().glob("*.json"):
        stale.unlink(missing_ok=True)
    finished = threading.Event()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as display:
        thread = threading.Thread(target=_follow, args=(display, finished), daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()


def _follow(display: Progress, finished: threading.Event) -> None:
    shown = {}
    while not finished.wait(_SECONDS_BETWEEN_BARS):
        current = set()
        for spool in _folder().glob("*.json"):
            try:
                state = json.loads(spool.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            current.add(spool.name)
            if spool.name not in shown:
                shown[spool.name] = display.add_task(state["description"], total=state["total"])
            display.update(shown[spool.name], completed=state["done"])
        for name in set(shown) - current:
            display.remove_task(shown.pop(name))
