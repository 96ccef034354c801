"""Hook Manager: reads an inner layer while the training loss is computed, and at no other time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from models.config import Tap
from models.errors import BadInput


@dataclass(frozen=True)
class Captured:
    """What a tap yielded in one training step.

    Attributes:
        source: float (…, full width), the tensor that the model goes on with.
        columns: the tap's slice of its last dimension.
        ids: int64 (n,), the internal user of each row, where the tap itself knows it; None
            means that the rows follow the batch's users.
    """

    source: Tensor
    columns: slice
    ids: Tensor | None

    @property
    def vectors(self) -> Tensor:
        """The tapped rows: float (n, width), part of the autograd graph."""
        return self.rows_of(self.source)

    def rows_of(self, tensor: Tensor) -> Tensor:
        """Rows and columns of a tensor shaped like `source`, such as its gradient."""
        return tensor.reshape(-1, tensor.shape[-1])[:, self.columns]


class HookManager:
    """Records what a tap yields during `recording()`.

    Hooks live exactly as long as that block, so prediction can never fire one and none is
    left behind. RecBole's models call `self.forward()` directly, which bypasses hooks on the
    model itself; hooks on submodules, wrapped methods and parameters all work.
    """

    def __init__(self, model: nn.Module, tap: Tap) -> None:
        """Check that `tap` names something in `model`.

        Raises:
            BadInput: if it does not, listing what the model has.
        """
        self.model = model
        self.tap = tap
        self._captured: Captured | None = None
        available = self.available(model, tap.kind)
        if tap.name not in available:
            raise BadInput(
                f"{type(model).__name__} has no {tap.kind} {tap.name} to tap; "
                f"it has {', '.join(available)}"
            )

    @staticmethod
    def available(model: nn.Module, kind: str) -> list[str]:
        """Names that a tap of this kind may have in `model`."""
        if kind == "module":
            return [name for name, _ in model.named_modules() if name]
        if kind == "parameter":
            return [name for name, _ in model.named_parameters()]
        own = [cls for cls in type(model).__mro__ if cls.__module__.startswith("recbole.model")]
        return sorted(
            name
            for cls in own[:1]
            for name, value in vars(cls).items()
            if callable(value) and not name.startswith("_")
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the tap while the block runs; hooks are gone when it ends."""
        self._captured = None
        if self.tap.kind == "module":
            module = self.model.get_submodule(self.tap.name)
            handle = module.register_forward_hook(self._on_forward)
            try:
                yield
            finally:
                handle.remove()
        elif self.tap.kind == "method":
            self._wrap_method()
            try:
                yield
            finally:
                delattr(self.model, self.tap.name)
        else:
            yield
            self._capture(self.model.get_parameter(self.tap.name), None)

    def take(self) -> Captured:
        """What was recorded when the tap fired last.

        Raises:
            BadInput: if the tap did not fire.
        """
        if self._captured is None:
            raise BadInput(
                f"{type(self.model).__name__}: the {self.tap.kind} {self.tap.name} did not fire "
                "while the loss was computed, so there is nothing to align; choose another tap"
            )
        captured, self._captured = self._captured, None
        return captured

    def _on_forward(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ids = inputs[0] if isinstance(module, nn.Embedding) else None
        self._capture(output, ids)

    def _wrap_method(self) -> None:
        original = getattr(self.model, self.tap.name)

        def recorded(*args: object, **kwargs: object) -> Tensor:
            output: Tensor = original(*args, **kwargs)
            self._capture(output, None)
            return output

        setattr(self.model, self.tap.name, recorded)

    def _capture(self, output: Tensor, ids: Tensor | None) -> None:
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise BadInput(
                f"{type(self.model).__name__}: the {self.tap.kind} {self.tap.name} does not "
                "yield rows of vectors; choose another tap"
            )
        width = output.shape[-1]
        start, stop = self.tap.start or 0, self.tap.stop or width
        if stop == "half":
            stop = width // 2
        if not start < stop <= width:
            raise BadInput(
                f"{type(self.model).__name__}: the tap's slice {start}:{stop} does not fit "
                f"{self.tap.name}, which is {width} wide"
            )
        rows = None if ids is None else ids.reshape(-1)
        self._captured = Captured(output, slice(start, stop), rows)
