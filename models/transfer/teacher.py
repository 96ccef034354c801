"""The alignment `teacher`: a model's scores are drawn to those of a model that has the knowledge.

The teacher p is a softmax over all items of the scores of EASE, iALS or Blend, which take whole
embeddings and see the training part alone (Hinton et al. 2015, "Distilling the knowledge in a
neural network"); each user's scores are standardised first, so that a temperature means the same
for each of them. For some users of each batch, the model's own scores s are computed as in
prediction, with the dropout of training, and drawn to p by the cross-entropy
−Σ_i p_i log softmax(g·s)_i. The gain g is learned beside the model and then dropped, so that
cosines can be as sharp as logits.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.config import Transfer
from models.transfer.losses import AlignmentLoss, LossManager

Scores = Callable[[Tensor], Tensor]
"""All items' scores, float (n, n_items), of users by internal ids, int64 (n,); 0 is padding."""


class Taught:
    """The transfer of a teacher's scores to a student's, in place of one side's at a tap."""

    recording = nullcontext
    """Scores are computed anew, so that nothing is recorded."""
    map = None

    def __init__(
        self,
        transfer: Transfer,
        seed: int,
        module: nn.Module,
        users: Callable[[Any], Tensor],
        student: Scores,
        teacher: Scores,
    ) -> None:
        """Let the student's `module` learn; `users` are a batch's, int64 (n,), with repeats."""
        self._settings, self._module, self._users = transfer.teacher, module, users
        self._student, self.teacher = student, teacher
        device = next(module.parameters()).device
        self.losses = LossManager(AlignmentLoss(transfer, 1, 1, seed).to(device), transfer.balance)
        self.state, self.restore = self.losses.state, self.losses.restore

    def weigh(self, loss: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """The transfer loss, and the same on the model loss's scale: two scalars."""
        users = self._users(batch)[: self._settings.users].unique()
        scores = self._student(users)[:, 1:]
        taught = self.teacher(users)[:, 1:].to(scores) / self._settings.temperature
        return self.losses.weigh(loss, scores, taught.softmax(dim=1), self._pull)

    def _pull(self, loss: Tensor) -> float:
        """The norm of a loss's gradient: both losses meet in the weights, and at no one layer."""
        weights = [part for part in self._module.parameters() if part.requires_grad]
        gradients = torch.autograd.grad(
            loss, weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return float(nn.utils.get_total_norm(gradients))
