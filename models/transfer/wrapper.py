"""Model Wrapper: a recommender's loss, with or without knowledge transfer."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.config import Tap, Transfer
from models.errors import BadInput
from models.transfer.hooks import Captured, HookManager
from models.transfer.losses import Losses, LossManager
from models.transfer.weights import WeightsManager


class Trainable(Protocol):
    """What the wrapper needs of a recommender (`models.recommender.Recommender`)."""

    module: nn.Module

    def loss(self, batch: Any) -> Tensor:
        """The model's own loss on a batch: a scalar."""

    def users_of(self, batch: Any) -> Tensor:
        """The batch's internal user ids: int64 (n,)."""


@dataclass(frozen=True)
class Targets:
    """Targets aligned to a model's internal user ids.

    Attributes:
        vectors: float32 (n_users, width), zero where unknown.
        known: bool (n_users,), False for users without a profile: they are masked out.
    """

    vectors: Tensor
    known: Tensor


class ModelWrapper:
    """Computes the loss of a training step and holds the managers that transfer needs.

    The architecture is not changed and nothing stays behind: in prediction the recommender is
    exactly what RecBole built.
    """

    def __init__(
        self,
        recommender: Trainable,
        transfer: Transfer | None = None,
        tap: Tap | None = None,
        targets: Targets | None = None,
    ) -> None:
        """Wrap `recommender`; without `transfer` it trains as a baseline."""
        self.recommender = recommender
        self.transfer = transfer
        self.weights = WeightsManager(recommender.module)
        self._layer_spread: float | None = None
        if transfer is not None:
            assert tap is not None
            assert targets is not None
            self.targets = targets
            self.hooks = HookManager(recommender.module, tap)
            self.losses = LossManager(transfer.alignment, transfer.alpha, transfer.balance)

    def start_phase(self, phase: str) -> None:
        """Freeze what the configuration holds still in this phase, thaw the rest."""
        frozen = self.transfer.freeze.model_dump().get(phase, ()) if self.transfer else ()
        self.weights.freeze_only(frozen)

    def step_loss(self, batch: Any, transferring: bool) -> Losses:
        """The losses of one step; `transferring` says whether the joint loss is on."""
        if not transferring:
            loss = self.recommender.loss(batch)
            return Losses(loss, loss, None)
        with self.hooks.recording():
            loss = self.recommender.loss(batch)
        captured = self.hooks.take()
        rows, users = self._aligned(captured, batch)
        hidden = captured.vectors[rows]
        target = self.targets.vectors[users] * self._scale(hidden)

        def pull(loss: Tensor) -> float:
            return _gradient_norm(loss, captured, rows)

        return self.losses.join(loss, hidden, target, pull)

    def _aligned(self, captured: Captured, batch: Any) -> tuple[Tensor, Tensor]:
        """Which tapped rows have a profile, and whose they are: both int64 (n,)."""
        width, target_width = captured.vectors.shape[1], self.targets.vectors.shape[1]
        if width != target_width:
            raise BadInput(
                f"the tapped layer {self.hooks.tap.name} is {width} wide, the targets are "
                f"{target_width} wide; set targets.width or the tap's slice"
            )
        if self.hooks.tap.kind == "parameter":
            users = self.recommender.users_of(batch).unique()
            users = users[self.targets.known[users]]
            return users, users
        users = captured.ids if captured.ids is not None else self._batch_users(captured, batch)
        rows = self.targets.known[users].nonzero().flatten()
        return rows, users[rows]

    def _batch_users(self, captured: Captured, batch: Any) -> Tensor:
        # RecBole repeats a batch's users once per negative item; the rows are the first repeat.
        users, n_rows = self.recommender.users_of(batch), len(captured.vectors)
        if n_rows == 0 or len(users) % n_rows:
            raise BadInput(
                f"the tap {self.hooks.tap.name} yields {n_rows} rows for {len(users)} users "
                "of the batch: they cannot be matched; choose a tap with one row per user"
            )
        return users[:n_rows]

    def _scale(self, hidden: Tensor) -> float:
        """What unit-variance targets are multiplied by; the layer's own spread is taken once.

        Following the layer while it trains would let its growth pull the targets along.
        """
        assert self.transfer is not None
        if isinstance(self.transfer.scale, float):
            return self.transfer.scale
        if self.transfer.scale == "none":
            return 1.0
        if self._layer_spread is None:
            self._layer_spread = float(hidden.detach().std()) if hidden.numel() > 1 else 1.0
        return self._layer_spread


def _gradient_norm(loss: Tensor, captured: Captured, rows: Tensor) -> float:
    """How hard `loss` pulls on the tapped rows; 0 where it does not depend on them."""
    if not captured.source.requires_grad:
        return 0.0
    gradient = torch.autograd.grad(loss, captured.source, retain_graph=True, allow_unused=True)[0]
    return 0.0 if gradient is None else float(captured.rows_of(gradient)[rows].norm())
