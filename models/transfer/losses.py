"""Loss Manager: the reconstruction losses, and how they join the model's own loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import Transfer

_TINY = 1e-12
_STEPS_BETWEEN_BALANCES = 32


class Alignment(nn.Module):
    """A reconstruction loss, with a head of its own where it needs one.

    Attributes:
        one_row_each: whether a user (item) that a batch repeats may enter only once, because
            rows are compared with each other.
        scaled: whether targets are brought to the layer's scale first.
    """

    one_row_each = False
    scaled = False

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of hidden float (n, width) and target float (n, target width)."""
        raise NotImplementedError


class Rmse(Alignment):
    """Root mean squared error over all rows and columns (LLM-KT, section 3.2)."""

    scaled = True

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The root is of the error plus 1e-12, so that its gradient is finite at the target."""
        return torch.sqrt(functional.mse_loss(hidden, target) + _TINY)


class Mse(Alignment):
    """Mean squared error over all rows and columns."""

    scaled = True

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Its pull fades near the target, where RMSE's does not."""
        return functional.mse_loss(hidden, target)


class Cosine(Alignment):
    """One minus the mean cosine of layer and target: direction alone."""

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Both are equally wide."""
        return 1 - functional.cosine_similarity(hidden, target).mean()


class Contrastive(Alignment):
    """InfoNCE between the layer and a projection of the target (RLMRec-Con, Ren et al. 2024).

    The profile is projected to the layer's width by a two-layer perceptron, and each row has to
    be told apart from the other rows of the batch (van den Oord et al. 2018, equation 4).
    """

    one_row_each = True

    def __init__(self, width: int, target_width: int, temperature: float) -> None:
        super().__init__()
        self.project = _perceptron(target_width, width)
        self.temperature = temperature

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each row's own profile among all rows' profiles."""
        layer = functional.normalize(hidden, dim=1)
        profile = functional.normalize(self.project(target), dim=1)
        own = torch.arange(len(hidden), device=hidden.device)
        return functional.cross_entropy(layer @ profile.T / self.temperature, own)


class Generative(Alignment):
    """Reconstructs the target from a masked layer (RLMRec-Gen, Ren et al. 2024).

    RLMRec masks nodes before graph convolution; masked here are columns of the tapped vector,
    which every model has. The error is one minus the cosine.
    """

    def __init__(self, width: int, target_width: int, mask: float, seed: int) -> None:
        super().__init__()
        self.reconstruct = _perceptron(width, target_width)
        self.mask = mask
        self._seed = seed
        self._generator: torch.Generator | None = None

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The mask is drawn from a generator of its own: the model's random numbers stay its."""
        if self._generator is None or self._generator.device != hidden.device:
            self._generator = torch.Generator(device=hidden.device).manual_seed(self._seed)
        drawn = torch.rand(hidden.shape, generator=self._generator, device=hidden.device)
        kept = hidden * (drawn >= self.mask) / (1 - self.mask)
        return 1 - functional.cosine_similarity(self.reconstruct(kept), target).mean()

    def get_extra_state(self) -> Tensor:
        """Where the masks' generator is; empty before its first draw."""
        return torch.empty(0) if self._generator is None else self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing masks where `get_extra_state` was called."""
        if len(state):
            device = next(self.parameters()).device
            self._generator = torch.Generator(device=device)
            self._generator.set_state(state.cpu())


class Linear(Alignment):
    """A learned linear head from the layer to the whole embedding, by RMSE: no reduction."""

    def __init__(self, width: int, target_width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, target_width)

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """RMSE of the predicted against the whole embedding."""
        return torch.sqrt(torch.mean((self.head(hidden) - target) ** 2) + _TINY)


class Relational(Alignment):
    """Two rows are to be as similar as their targets (relational distillation, Park et al. 2019).

    Mean squared difference of the two cosine matrices, without their diagonals.
    """

    one_row_each = True

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        """0 where there is one row only."""
        layer = functional.normalize(hidden, dim=1)
        profile = functional.normalize(target, dim=1)
        difference = layer @ layer.T - profile @ profile.T
        pairs = max(len(hidden) * (len(hidden) - 1), 1)
        return (difference**2).fill_diagonal_(0.0).sum() / pairs


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """Two layers with the mean of both widths between them, as RLMRec's projections."""
    between = (inputs + outputs) // 2
    return nn.Sequential(nn.Linear(inputs, between), nn.LeakyReLU(), nn.Linear(between, outputs))


def alignment(transfer: Transfer, width: int, target_width: int, seed: int) -> Alignment:
    """The configured alignment; the seed decides its head's first weights and its masks."""
    made: dict[str, Callable[[], Alignment]] = {
        "rmse": Rmse,
        "mse": Mse,
        "cosine": Cosine,
        "contrastive": lambda: Contrastive(width, target_width, transfer.temperature),
        "generative": lambda: Generative(width, target_width, transfer.mask, seed),
        "linear": lambda: Linear(width, target_width),
        "relational": Relational,
        "init": Rmse,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return made[transfer.alignment]()


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

    def __init__(self, align: Alignment, balance: str = "none") -> None:
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
            self._rebalance(pull(model_loss), pull(transfer))
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

    def _rebalance(self, of_model: float, of_transfer: float) -> None:
        """Move the ratio towards the present one, where both losses pull at all."""
        if of_model > 0 and of_transfer > 0:
            present = of_model / of_transfer
            self.ratio = present if self._steps == 0 else 0.5 * self.ratio + 0.5 * present
