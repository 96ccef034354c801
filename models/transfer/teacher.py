"""The alignment `teacher`: a model's scores are drawn to those of a model that has the knowledge.

The teacher p is a softmax over all items of the scores of EASE or iALS, which take whole embeddings
and see the training part alone (Hinton et al. 2015, "Distilling the knowledge in a neural
network"). For some users of each batch, the model's own scores s are computed as in prediction,
with the dropout of training, and drawn to p by the cross-entropy −Σ_i p_i log softmax(g·s)_i. The
gain g is learned beside the model and then dropped, so that cosines can be as sharp as logits.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.config import Side, Transfer
from models.transfer.losses import AlignmentLoss, LossManager

Scores = Callable[[Tensor], Tensor]
"""All items' scores, float (n, n_items), of users by internal ids, int64 (n,); 0 is padding."""


@dataclass(frozen=True)
class Lesson:
    """Who learns from whom.

    Attributes:
        student: the model's scores, part of the autograd graph.
        teacher: those that it learns from.
    """

    student: Scores
    teacher: Scores


class Student(Protocol):
    """What is needed of a recommender (`models.recommenders.recommender.Recommender`)."""

    module: nn.Module

    def ids(self, side: Side, batch: Any) -> Tensor:
        """The batch's internal ids of users or items, with repeats: int64 (n,)."""


class Taught:
    """The transfer of a teacher's scores, in place of one side's transfer at a tap."""

    def __init__(self, student: Student, transfer: Transfer, lesson: Lesson, seed: int) -> None:
        self._student, self._lesson, self._settings = student, lesson, transfer.teacher
        device = next(student.module.parameters()).device
        self.losses = LossManager(AlignmentLoss(transfer, 1, 1, seed).to(device), transfer.balance)

    def recording(self) -> AbstractContextManager[None]:
        """Nothing is recorded: scores are computed anew."""
        return nullcontext()

    def start_epoch(self) -> None:
        """The teacher stays as it is."""

    def state(self) -> dict[str, Any]:
        """What training has changed, as tensors and plain values."""
        return self.losses.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.losses.restore(state)

    def weigh(self, loss: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """The transfer loss, and the same on the model loss's scale: two scalars."""
        users = self._student.ids("users", batch)[: self._settings.users].unique()
        scores = self._lesson.student(users)[:, 1:]
        taught = self._lesson.teacher(users)[:, 1:].to(scores) / self._settings.temperature
        return self.losses.weigh(loss, scores, taught.softmax(dim=1), self._pull)

    def _pull(self, loss: Tensor) -> float:
        """The norm of a loss's gradient: both losses meet in the weights, and at no one layer."""
        weights = [part for part in self._student.module.parameters() if part.requires_grad]
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        squares = [part.square().sum() for part in gradients if part is not None]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
