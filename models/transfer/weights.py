"""Weights Manager: freezes and thaws a model's parameters by layer name or glob."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from models.errors import BadInput


class WeightsManager:
    """Freeze layers for a phase of training.

    A frozen parameter gets no gradient, so that no optimizer moves it, momentum included.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._trainable = {name for name, p in model.named_parameters() if p.requires_grad}

    def matching(self, patterns: Iterable[str]) -> set[str]:
        """Names of the parameters that a pattern matches: a parameter, a layer, or a glob.

        Raises:
            BadInput: for a pattern that matches nothing, with the names there are.
        """
        names = [name for name, _ in self.model.named_parameters()]
        found: set[str] = set()
        for pattern in patterns:
            matched = {
                name
                for name in names
                if name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
            }
            if not matched:
                raise BadInput(
                    f"freeze: {pattern} matches no parameter of {type(self.model).__name__}. "
                    f"Choose among {', '.join(names)}."
                )
            found |= matched
        return found

    def freeze_only(self, patterns: Iterable[str]) -> None:
        """Freeze what the patterns match and thaw everything else that was trainable."""
        frozen = self.matching(patterns)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._trainable and name not in frozen)
            if name in frozen:
                parameter.grad = None

    def thaw(self) -> None:
        """Make every parameter trainable that was so at the start."""
        self.freeze_only(())
