"""Hook Manager: reads an inner layer while the training loss is computed, and at no other time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.config import Side, Tap
from models.errors import BadInput

_NOT_TAPPED = {
    "loss",
    "scores",
    "calculate_loss",
    "predict",
    "full_sort_predict",
    "train",
    "e_step",
    "run_kmeans",
}


@dataclass(frozen=True)
class Captured:
    """What a tap yielded in one training step.

    Attributes:
        sources: float (…, full width) each: the tensors that the model goes on with, one per
            firing that counts.
        columns: the tap's slice of their last dimension.
        ids: int64 (n,), the row of the table that each vector is, where the tap itself has it.
        entries: float (n, length), the weight of each entry of a sequence in its row's vector;
            None where rows are no sequences.
    """

    sources: tuple[Tensor, ...]
    columns: slice
    ids: Tensor | None
    entries: Tensor | None

    @property
    def vectors(self) -> Tensor:
        """The tapped rows: float (n, width), part of the autograd graph."""
        return self.rows_of(self.sources)

    def rows_of(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Rows and columns of tensors shaped like `sources`, such as their gradients.

        It is linear, so that a gradient's rows are the pull on the vectors as they are pooled.
        What a model computed in mixed precision is float32 from here on.
        """
        tensors = tuple(t.float() if t.dtype == torch.bfloat16 else t for t in tensors)
        if self.entries is not None:
            return torch.einsum("nl,nlw->nw", self.entries, tensors[0][..., self.columns])
        rows = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
        # A slice, even of everything, costs its gradient a copy.
        if self.columns != slice(0, tensors[0].shape[-1]):
            rows = [tensor[:, self.columns] for tensor in rows]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


class HookManager:
    """Records what a tap yields during `recording()`.

    Hooks live exactly as long as that block, so prediction can never fire one and none is
    left behind. RecBole's models call `self.forward()` directly, which bypasses hooks on the
    model itself; hooks on submodules, wrapped methods and parameters all work. An embedding's
    every firing counts, since it says whose rows it gave; of anything else the first does, for
    later ones are augmented views.

    Attributes:
        table: the embedding that is tapped, None if the tap is something else.
    """

    def __init__(self, model: nn.Module, tap: Tap) -> None:
        """Take a tap of `model`; BadInput if it names nothing there, with what there is."""
        self.model = model
        self.tap = tap
        self._captured: Captured | None = None
        available = self.available(model, tap.kind)
        if tap.name not in available:
            raise BadInput(
                f"{type(model).__name__} has no {tap.kind} {tap.name} to tap. Choose one of "
                f"{', '.join(available)}."
            )
        module = model.get_submodule(tap.name) if tap.kind == "module" else None
        self.table = module if isinstance(module, nn.Embedding) else None
        self._rows_have_ids = self.table is not None and tap.pool is None

    def matrix(self) -> Tensor | None:
        """The tap's columns of the embedding or parameter that is tapped, as a view.

        Float (rows, width); None where the tap is neither, or pools the rows of a table.
        """
        if self.tap.kind == "parameter":
            whole: Tensor = self.model.get_parameter(self.tap.name)
        elif self._rows_have_ids and self.table is not None:
            whole = self.table.weight
        else:
            return None
        return whole[:, self._columns(whole.shape[1])]

    def starting_table(self, model: str, side: Side) -> Tensor:
        """The `matrix` that alignment `init` starts from the targets; BadInput where it is none."""
        found = self.matrix()
        if found is None:
            key, name = ("tap", "user") if side == "users" else ("item_tap", "item")
            raise BadInput(
                f"transfer.alignment init starts a table from the targets, but for {side} the "
                f"{self.tap.kind} {self.tap.name} of {model} is none. Set models.{model}."
                f"{key} to an embedding, such as {{name: {name}_embedding}}, or to a parameter."
            )
        return found

    @staticmethod
    def available(model: nn.Module, kind: str) -> list[str]:
        """Names that a tap of this kind may have in `model`."""
        if kind == "module":
            return [name for name, _ in model.named_modules() if name]
        if kind == "parameter":
            return [name for name, _ in model.named_parameters()]
        return sorted(
            name
            for part in _own_classes(type(model))
            for name, value in vars(part).items()
            if callable(value) and not name.startswith("_") and name not in _NOT_TAPPED
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the tap while the block runs; hooks are gone when it ends."""
        self._captured = None
        if self.tap.kind == "parameter":
            yield
            self._capture(self.model.get_parameter(self.tap.name), ())
            return
        with listening(self.model, self.tap.kind, self.tap.name, self._capture):
            yield

    def take(self) -> Captured | None:
        """What was recorded, None if the tap did not fire."""
        captured, self._captured = self._captured, None
        return captured

    def _capture(self, output: Any, arguments: tuple[Any, ...]) -> None:
        if self._captured is not None and not self._rows_have_ids:
            return
        source = self._element(output)
        columns = self._columns(source.shape[-1])
        ids = arguments[0].reshape(-1) if self._rows_have_ids else None
        entries = self._entries(source, arguments) if self.tap.pool else None
        before = self._captured
        if before is not None and before.ids is not None and ids is not None:
            self._captured = Captured(
                (*before.sources, source), columns, torch.cat((before.ids, ids)), None
            )
        else:
            self._captured = Captured((source,), columns, ids, entries)

    def _element(self, output: Any) -> Tensor:
        """The tapped tensor of what a module or method returned."""
        index = self.tap.output
        if isinstance(output, tuple | list) and index is not None and index < len(output):
            output = output[index]
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise BadInput(
                f"{type(self.model).__name__}: the {self.tap.kind} {self.tap.name} does not "
                f"yield rows of vectors but {_shape(output)}. Choose another tap, or set output."
            )
        return output

    def _columns(self, width: int) -> slice:
        start, stop = self.tap.start or 0, self.tap.stop or width
        if stop == "half":
            stop = width // 2
        if not start < stop <= width:
            raise BadInput(
                f"{type(self.model).__name__}: the tap's slice {start}:{stop} does not fit "
                f"{self.tap.name}, which is {width} wide. Correct start and stop."
            )
        return slice(start, stop)

    def _entries(self, source: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        """Weights of a sequence's entries; its ids are the first argument, 0 is padding."""
        ids = arguments[0] if arguments else None
        if not isinstance(ids, Tensor) or ids.shape != source.shape[:-1] or ids.dim() != 2:
            raise BadInput(
                f"{type(self.model).__name__}: the {self.tap.kind} {self.tap.name} does not yield "
                f"sequences, so tap.pool {self.tap.pool} does not apply. Remove it."
            )
        present = (ids != 0).float()
        if self.tap.pool == "mean":
            return present / present.sum(dim=1, keepdim=True).clamp(min=1)
        places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        last = (present * places).argmax(dim=1, keepdim=True)
        return torch.zeros_like(present).scatter_(1, last, 1.0)


def _own_classes(model: type) -> Iterator[type]:
    """The classes that make a model what it is: up to RecBole's of that name, or torch's base."""
    for part in model.__mro__[: model.__mro__.index(nn.Module)]:
        yield part
        if part.__module__.startswith("recbole.model."):
            return


@contextmanager
def listening(
    model: nn.Module, kind: str, name: str, hear: Callable[[Any, tuple[Any, ...]], Any]
) -> Iterator[None]:
    """Call `hear(output, arguments)` whenever a module or method of the model has run.

    What it returns, if not None, replaces the output.
    """
    if kind == "module":
        handle = model.get_submodule(name).register_forward_hook(
            lambda _module, arguments, output: hear(output, arguments)
        )
        try:
            yield
        finally:
            handle.remove()
        return
    original = getattr(model, name)

    def listened(*arguments: Any, **keywords: Any) -> Any:
        output = original(*arguments, **keywords)
        heard = hear(output, arguments)
        return output if heard is None else heard

    already_heard = name in vars(model)
    setattr(model, name, listened)
    try:
        yield
    finally:
        if already_heard:
            setattr(model, name, original)
        else:
            delattr(model, name)


def gradient_norm(loss: Tensor, captured: Captured, rows: Tensor | None) -> float:
    """How hard `loss` pulls on the tapped rows; 0 where it does not depend on them."""
    if not all(source.requires_grad for source in captured.sources):
        return 0.0
    gradients = torch.autograd.grad(
        loss, captured.sources, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    pulled = captured.rows_of(gradients)
    return float((pulled if rows is None else pulled[rows]).norm())


@dataclass(frozen=True)
class Sighting:
    """Something that can be tapped: it ran while a training loss was computed.

    Attributes:
        kind, name: as in a `Tap`.
        shape: of what it yielded first, in words.
        fires: how often it ran in one step.
        rows: whether it yields rows of vectors, so that it may be tapped.
    """

    kind: Literal["module", "parameter", "method"]
    name: str
    shape: str
    fires: int
    rows: bool


def did_not_fire(name: str, module: nn.Module, tap: Tap, step: Callable[[], object]) -> BadInput:
    """Say that a tap yields nothing while `step` computes the loss, and what would."""
    fired = ", ".join(f"{s.kind} {s.name}" for s in survey(module, step) if s.rows)
    return BadInput(
        f"models.{name}: the {tap.kind} {tap.name} does not fire while the loss is computed, so "
        f"that there is nothing to align. Tap one of these: {fired}."
    )


def survey(model: nn.Module, step: Callable[[], object]) -> list[Sighting]:
    """Everything in `model` that yields something while `step` computes a training loss."""
    heard: dict[tuple[Literal["module", "method"], str], list[Any]] = {}

    def hearing(outputs: list[Any]) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda output, _: outputs.append(output)

    kinds: tuple[Literal["module", "method"], ...] = ("module", "method")
    with ExitStack() as stack:
        for kind in kinds:
            for name in HookManager.available(model, kind):
                outputs = heard.setdefault((kind, name), [])
                stack.enter_context(listening(model, kind, name, hearing(outputs)))
        step()
    fired = [
        Sighting(kind, name, _shape(outputs[0]), len(outputs), _has_rows(outputs[0]))
        for (kind, name), outputs in heard.items()
        if outputs
    ]
    parameters = [
        Sighting("parameter", name, _shape(value), 1, value.dim() == 2)
        for name, value in model.named_parameters()
    ]
    return fired + parameters


def _shape(output: Any) -> str:
    """`(64, 32)`, or `2 outputs: (64, 32), (64, 8)`."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, tuple | list):
        return f"{len(output)} outputs: {', '.join(_shape(part) for part in output)}"
    return f"a {type(output).__name__}"


def _has_rows(output: Any) -> bool:
    parts = output if isinstance(output, tuple | list) else (output,)
    return any(isinstance(part, Tensor) and part.dim() >= 2 for part in parts)
