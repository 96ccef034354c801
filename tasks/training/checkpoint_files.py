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
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from tasks.storage.artifacts import data_dir, replacing, versions

if TYPE_CHECKING:
    from models.training.training_state import State

SHARE = 0.02
"""Of a training's time that writing checkpoints may take; single ones may take unusually long."""

_BYTES_PER_SECOND = 1e8
_DIGEST_BYTES = 32


def checkpoint_file(key: str) -> Path:
    """Where the training with this cache key leaves its state."""
    return data_dir() / "checkpoints" / f"{key}.pt"


class CheckpointFile:
    """`models.training.training_state.Checkpoints` on disk.

    A checkpoint is written after an epoch if all of them together, this one included, then stay
    within `SHARE` of the time since the training began: after each epoch where epochs are long,
    after some where they take milliseconds. What one costs is measured; the first one's cost is
    estimated from its size.
    """

    def __init__(self, key: str, device: str = "cpu") -> None:
        """Take the training's cache key, and its device, which may be another GPU than before."""
        self.path = checkpoint_file(key)
        self._device = device
        self._identity = {"key": key, "versions": versions()}
        self._began = perf_counter()
        self._spent = 0.0
        self._cost: float | None = None

    def newest(self) -> "State | None":
        """The state that was left; None, with a warning, if the file is damaged or foreign."""
        import torch

        try:
            with self.path.open("rb") as file:
                digest, payload = file.read(_DIGEST_BYTES), file.read()
        except FileNotFoundError:
            return None
        if hashlib.sha256(payload).digest() != digest:
            self._ignore("is damaged")
            return None
        found: dict[str, Any] = torch.load(
            io.BytesIO(payload), weights_only=True, map_location=self._moved
        )
        if found["identity"] != self._identity:
            self._ignore("belongs to another training or to other package versions")
            return None
        return dict(found["state"])

    def save(self, state: "Callable[[], State]") -> None:
        """Replace the file, unless that would exceed `SHARE` of the time."""
        now = perf_counter()
        cost = _size(state()) / _BYTES_PER_SECOND if self._cost is None else self._cost
        if self._spent + cost > SHARE * (now - self._began):
            return
        self._write(state())
        self._cost = perf_counter() - now
        self._spent += self._cost

    def _write(self, state: "State") -> None:
        import torch

        # Not forced to the disk: after a loss of power the digest tells a torn file.
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(bytes(_DIGEST_BYTES))
            payload = _Digested(file)
            torch.save({"identity": self._identity, "state": state}, cast(IO[bytes], payload))
            file.seek(0)
            file.write(payload.digest.digest())

    def _moved(self, storage: Any, location: str) -> Any:
        """What was on a GPU goes to this training's device; what was on the CPU stays there."""
        from torch.serialization import default_restore_location

        return default_restore_location(storage, location if location == "cpu" else self._device)

    def _ignore(self, why: str) -> None:
        logging.getLogger("llmkt").warning(
            "%s %s. The training starts from its first epoch.",
            self.path.relative_to(data_dir()),
            why,
        )


class _Digested:
    """A file that is digested as it is written, so that no state is in memory twice."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, part: bytes) -> int:
        """Append to file and digest."""
        self.digest.update(part)
        return self._file.write(part)

    def flush(self) -> None:
        """For torch; the file is flushed where it is closed."""


def _size(value: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return int(getattr(value, "nbytes", 0))


def forget(_task: object, _run: object, state: Any) -> None:
    """Delete a training's checkpoint, once Prefect has stored its result (a hook of the task)."""
    from tasks.storage.prefect_results import has_result  # worker processes need no Prefect

    record = getattr(state.data, "metadata", state.data)  # a result, or what describes it
    key = Path(record.storage_key).name
    if has_result(key):
        checkpoint_file(key).unlink(missing_ok=True)
