"""Loss Manager: the alignment's loss, and how it joins the model's own loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.config import Transfer

_STEPS_BETWEEN_BALANCES = 32


class AlignmentLoss(nn.Module):
    """The configured alignment (`models.config.alignments`) with its head and random numbers."""

    def __init__(self, transfer: Transfer, width: int, target_width: int, seed: int) -> None:
        """Make the head for a tapped layer's and its targets' widths.

        `seed` decides the head's first weights and all that the loss draws.
        """
        super().__init__()
        self.settings = transfer
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._resumed = torch.empty(0)
        make = transfer.method.head
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = make(width, target_width) if make else None

    def forward(self, layer: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of layer float (n, width) and target float (n, target width)."""
        return self.settings.method.loss(layer, target, self)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw from a generator of its own: the model's random numbers stay as they are."""
        if self._generator is None or self._generator.device != like.device:
            self._generator = torch.Generator(device=like.device).manual_seed(self._seed)
            if len(self._resumed):
                self._generator.set_state(self._resumed)
        return torch.rand(like.shape, generator=self._generator, device=like.device)

    def get_extra_state(self) -> Tensor:
        """Return the generator's state; empty before the first draw."""
        return self._resumed if self._generator is None else self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where `get_extra_state` was called."""
        self._resumed, self._generator = state.cpu(), None


@dataclass(frozen=True)
class Losses:
    """The loss that is minimised and its parts, all scalars."""

    total: Tensor
    model: Tensor
    transfer: Tensor | None


class LossManager:
    """Weighs one side's transfer against the model's own loss (LLM-KT, equation 2).

    The published sum is `(1 - alpha) · model + alpha · transfer`. There, alpha means one thing
    for BPR, whose loss is below one, and another for MultiVAE, whose loss is in the hundreds.
    Balanced by gradient, transfer is multiplied by the running ratio of both losses' gradient
    norms at the tapped layer, so that alpha is the transfer's share of the pull on that layer.
    """

    def __init__(self, align: AlignmentLoss, balance: str = "none") -> None:
        self.align = align
        self.balance = balance
        self.ratio = 1.0
        self._steps = 0

    def weigh(
        self, model_loss: Tensor, hidden: Tensor, target: Tensor, pull: Callable[[Tensor], float]
    ) -> tuple[Tensor, Tensor]:
        """The transfer loss, and the same on the model loss's scale: two scalars.

        Args:
            model_loss: a scalar.
            hidden: float (n, width), the tapped rows that have a profile; n of at least 1.
            target: float (n, target width), their targets.
            pull: the norm of a loss's gradient at the tapped rows.
        """
        transfer: Tensor = self.align(hidden, target)
        if self.balance == "gradient" and self._due():
            own, others = pull(model_loss), pull(transfer)
            if own > 0 and others > 0:  # both losses pull
                self.ratio = own / others if self._steps == 0 else (self.ratio + own / others) / 2
        self._steps += 1
        return transfer, self.ratio * transfer

    def state(self) -> dict[str, Any]:
        """What training has changed, as tensors and plain values."""
        return {"align": self.align.state_dict(), "ratio": self.ratio, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.align.load_state_dict(state["align"])
        self.ratio, self._steps = state["ratio"], state["steps"]

    def _due(self) -> bool:
        """Whether to measure both pulls: often at first, when they change most; it costs a pass."""
        steps = self._steps
        return steps % _STEPS_BETWEEN_BALANCES == 0 or steps & (steps - 1) == 0
