"""What was handed to a Batch API and not yet collected, on disk so that any later run can collect.

`batches/ID.jsonl` holds a batch's requests and `ID.json` its state, written before the batch is
created: whatever moment a run is killed at, the next one can tell what was submitted. In a store
they are there as well, so that the next one may run on another machine.
"""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import BadInput
from tasks.storage.artifacts import data_dir, discard, mirror, replacing, share

_FOLDER = "batches"

MARK = "llmkt_submission"
"""Key of a batch's metadata at the endpoint that holds our own id of it."""


@dataclass
class Submission:
    """One batch: our id, the endpoint's (None until it is known), and the keys asked for."""

    name: str
    endpoint: str
    keys: frozenset[str]
    batch_id: str | None = None
    reserved: float = 0.0
    """US dollars of this run's budget; 0 for an earlier run's batch. Not kept on disk."""

    @property
    def requests(self) -> Path:
        """The requests as uploaded, one JSON object a line."""
        return data_dir() / _FOLDER / f"{self.name}.jsonl"

    def created(self, batch_id: str | None) -> None:
        """Write down the endpoint's id; None before it is known."""
        self.batch_id = batch_id
        state = {"endpoint": self.endpoint, "batch_id": batch_id, "keys": sorted(self.keys)}
        _write(self.requests.with_suffix(".json"), json.dumps(state))

    def close(self) -> None:
        """Forget a batch whose answers are all in the store, or that was never created."""
        discard(self.requests.with_suffix(".json"))
        discard(self.requests)


def prepare(endpoint: str, requests: list[dict[str, Any]]) -> Submission:
    """Write down what is about to be submitted; `custom_id` is each request's key."""
    keys = frozenset(request["custom_id"] for request in requests)
    submission = Submission(uuid.uuid4().hex, endpoint, keys)
    _write(submission.requests, "".join(json.dumps(request) + "\n" for request in requests))
    submission.created(None)
    return submission


def open_submissions(endpoint: str) -> Iterator[Submission]:
    """Yield what was submitted to this endpoint and not collected."""
    mirror(_FOLDER)
    for file in sorted((data_dir() / _FOLDER).glob("*.json")):
        try:
            state = json.loads(file.read_bytes())
            found = Submission(file.stem, state["endpoint"], frozenset(state["keys"]))
            found.batch_id = state["batch_id"]
            whole = all(isinstance(name, str) for name in (found.endpoint, *found.keys))
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise BadInput(
                f"{file}: damaged. Restore a copy, or move it away: the answers of that batch are "
                "then asked for, and paid, again"
            )
        if found.endpoint == endpoint:
            yield found


def _write(path: Path, text: str) -> None:
    """Write whole or not at all, and to the disk before anything is submitted."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    share(path)
