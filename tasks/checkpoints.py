"""Checkpoints of trainings: one file each, which a killed training goes on from.

A file is the sha256 of what follows and then what `torch.save` makes of tensors and plain values;
it is replaced by an atomic rename and read without executing anything.
"""

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tasks.disk import writing
from tasks.storage import data_dir, new_file, versions

if TYPE_CHECKING:
    from models.resuming import State

SHARE = 0.03
"""Of a training's time that writing checkpoints may take."""

_DIGEST_BYTES = 32
_FORMAT = 1


def checkpoint_file(key: str) -> Path:
    """Where the training with this cache key leaves its state."""
    return data_dir() / "checkpoints" / f"{key}.pt"


class CheckpointFile:
    """`models.resuming.Checkpoints` on disk.

    A checkpoint is written after the first epoch and then after each epoch before which writing
    the last one took less than `SHARE` of the time since; so trainings with epochs of
    milliseconds leave one every few, and long ones leave one after each.
    """

    def __init__(self, key: str) -> None:
        """Take the cache key of the training; other trainings' files are foreign."""
        self.path = checkpoint_file(key)
        self._identity = {"format": _FORMAT, "key": key, "versions": versions()}
        self._written_at = perf_counter()
        self._cost = 0.0

    def newest(self) -> "State | None":
        """The state that was left; None, with a warning, if the file is damaged or foreign."""
        import torch

        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            self._ignore("is damaged")
            return None
        found: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
        if found["identity"] != self._identity:
            self._ignore("belongs to another training or to other package versions")
            return None
        state: State = found["state"]
        return state

    def offer(self, state: "Callable[[], State]") -> None:
        """Replace the file, unless that would take more than `SHARE` of the time."""
        began = perf_counter()
        if began - self._written_at < self._cost / SHARE:
            return
        self._write(state())
        self._written_at = perf_counter()
        self._cost = self._written_at - began

    def _write(self, state: "State") -> None:
        import torch

        stream = io.BytesIO()
        torch.save({"identity": self._identity, "state": state}, stream)
        payload = stream.getbuffer()
        with writing(self.path), new_file(self.path.parent) as temporary:
            # Not forced to the disk: after a loss of power the digest tells a torn file.
            with temporary.open("wb") as file:
                file.write(hashlib.sha256(payload).digest())
                file.write(payload)
            temporary.replace(self.path)

    def _ignore(self, why: str) -> None:
        logging.getLogger("llmkt").warning(
            "%s %s; the training starts anew", self.path.relative_to(data_dir()), why
        )


def forget(_task: object, _run: object, state: Any) -> None:
    """Delete a training's checkpoint, once Prefect has stored its result (a hook of the task)."""
    key = Path(str(getattr(state.data, "storage_key", ""))).name
    if key and (data_dir() / "cache" / key).exists():
        checkpoint_file(key).unlink(missing_ok=True)
