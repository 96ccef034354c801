"""Loss Manager: the reconstruction losses, and how they join the model's own loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Alignment = Callable[[Tensor, Tensor], Tensor]

_TINY = 1e-12
_STEPS_BETWEEN_BALANCES = 4


def rmse(hidden: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error over all rows and columns (LLM-KT, section 3.2).

    Args:
        hidden: float (n, width), the tapped layer.
        target: float (n, width), the profiles' targets of the same users.

    Returns:
        A scalar. The root is taken of the error plus 1e-12, so that the gradient stays finite
        where the layer equals its target.
    """
    return torch.sqrt(torch.mean((hidden - target) ** 2) + _TINY)


ALIGNMENTS: dict[str, Alignment] = {"rmse": rmse}


@dataclass(frozen=True)
class Losses:
    """The loss that is minimised and its parts, all scalars."""

    total: Tensor
    model: Tensor
    transfer: Tensor | None


class LossManager:
    """Joins both losses: `(1 - alpha) · model + alpha · ratio · transfer` (LLM-KT, equation 2).

    The published sum has a ratio of 1. There, alpha means one thing for BPR, whose loss is
    below one, and another for MultiVAE, whose loss is in the hundreds. Balanced by gradient, the
    ratio is the running ratio of both losses' gradient norms at the tapped layer, so that alpha
    is the transfer's share of the pull on that layer.
    """

    def __init__(self, alignment: str, alpha: float, balance: str = "none") -> None:
        self.align = ALIGNMENTS[alignment]
        self.alpha = alpha
        self.balance = balance
        self.ratio = 1.0
        self._steps = 0

    def join(
        self, model_loss: Tensor, hidden: Tensor, target: Tensor, pull: Callable[[Tensor], float]
    ) -> Losses:
        """Combine; where no row of the batch has a profile the model's loss stands alone.

        Args:
            model_loss: a scalar.
            hidden: float (n, width), the tapped rows that have a profile.
            target: float (n, width), their targets.
            pull: the norm of a loss's gradient at the tapped rows.
        """
        if len(hidden) == 0:
            return Losses(model_loss, model_loss, None)
        transfer = self.align(hidden, target)
        if self.balance == "gradient" and self._steps % _STEPS_BETWEEN_BALANCES == 0:
            self._rebalance(pull(model_loss), pull(transfer))
        self._steps += 1
        total = (1 - self.alpha) * model_loss + self.alpha * self.ratio * transfer
        return Losses(total, model_loss, transfer)

    def _rebalance(self, of_model: float, of_transfer: float) -> None:
        """Move the ratio towards the present one, where both losses pull at all."""
        if of_model > 0 and of_transfer > 0:
            present = of_model / of_transfer
            self.ratio = present if self._steps == 0 else 0.9 * self.ratio + 0.1 * present
