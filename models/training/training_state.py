"""The whole state of a training between two epochs, in tensors and plain values.

It can be read without executing anything. Values that RecBole's models keep outside of parameters
and buffers (NCL's clusters, the annealing of variational autoencoders, DiffRec's loss history,
LINE's shuffled list) are found by comparing their attributes with those of the fresh model, which
is built the same way each time.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

State = dict[str, Any]

_ARRAY = "numpy array"
_PLAIN = (bool, int, float, str, type(None))
_MADE_AGAIN = {
    *vars(nn.Module()),
    # Computed from weights when they are asked for.
    "restore_user_e",
    "restore_item_e",
    "i_embedding",
    # Drawn anew by SGL at the start of each epoch.
    "sub_graph1",
    "sub_graph2",
}


class Checkpoints(Protocol):
    """A place for a training's state after an epoch."""

    def newest(self) -> State | None:
        """The state to go on from; None to start anew."""

    def save(self, state: Callable[[], State]) -> None:
        """Store `state()`, unless that would take too long this time."""


class Memory:
    """A module's values outside of parameters and buffers, as far as training changes them."""

    def __init__(self, module: nn.Module) -> None:
        """Note how the fresh module is."""
        self._module = module
        # Values stay referred to: the identity of a tensor that is gone may be another's.
        self._fresh = {place: (value, _mark(value)) for place, value in self._attributes()}

    def state(self) -> State:
        """What differs from the fresh module, by module and attribute."""
        changed: State = {}
        for (module, name), value in self._attributes():
            before = self._fresh.get((module, name))
            if before is None or before[1] != _mark(value):
                changed.setdefault(module, {})[name] = _plain(value)
        return changed

    def restore(self, state: State) -> None:
        """Put back what `state` returned."""
        for module, attributes in state.items():
            for name, value in attributes.items():
                part = self._module.get_submodule(module)
                device = getattr(getattr(part, name, None), "device", None)
                setattr(part, name, _original(value, device))

    def _attributes(self) -> Iterator[tuple[tuple[str, str], Any]]:
        for module, part in self._module.named_modules():
            for name, value in vars(part).items():
                if name not in _MADE_AGAIN and _mark(value) is not None:
                    yield (module, name), value


def _mark(value: Any) -> tuple[Any, ...] | None:
    """Something that differs when a value was changed; None for what cannot be kept."""
    if isinstance(value, _PLAIN):
        return (value,)
    if isinstance(value, Tensor):
        # Another name of a parameter, as in nn.GRU, is kept with the parameters.
        return None if isinstance(value, nn.Parameter) else (id(value), value._version)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return (value.shape, zlib.crc32(np.ascontiguousarray(value).data.cast("B")))
    if isinstance(value, list | tuple):
        marks = [_mark(item) for item in value]
        return None if None in marks else (type(value), *marks)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.detach() if isinstance(value, Tensor) else value


def _original(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value if device is None else value.to(device)
    if isinstance(value, dict):
        return value[_ARRAY].numpy()
    if isinstance(value, list | tuple):
        return type(value)(_original(item, device) for item in value)
    return value


def random_state(device: torch.device) -> State:
    """The state of every source that `models.recommenders.recbole_trainers.seed_all` seeds."""
    name, keys, position, has_gauss, gauss = cast(
        tuple[str, NDArray[np.uint32], int, int, float], np.random.get_state(legacy=True)
    )
    state: State = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: State, device: torch.device) -> None:
    """Go on drawing where `random_state` was taken."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
