"""The map of the alignment `mapped`: what targets foretell of a layer, by ridge regression.

A row's vector h_i is drawn to t_i A, its target under a map that all rows share. As for iALS (see
`models.recommenders.ials`), A is learned, so that targets may have any axes and any width:

    A = argmin Σ_i n_i/(n_i + k) ‖h_i − t_i A‖² + ρ·τ·‖A‖²,

over the rows with a target, where n_i are a row's training interactions, k is
`transfer.shrinkage`, ρ `transfer.ridge`, and τ the mean square norm of the targets, which makes ρ
free of their scale. It is solved in closed form before each epoch, from the vectors of the epoch
before; in the first epoch there is nothing to learn from, and so no transfer. The pull on a row is
weighted k/(n_i + k): little where its interactions tell enough (a shrinkage estimator).
"""

from typing import Any

import torch
from torch import Tensor

from models.config import Transfer


class RidgeMap:
    """The map of one side, with the newest vector of each row that was trained.

    Attributes:
        pull: float32 (n_rows,), the weight k/(n + k) of each row.
    """

    def __init__(
        self, settings: Transfer, targets: Tensor, known: Tensor, counts: Tensor, width: int
    ) -> None:
        """Start without a map.

        Args:
            settings: `shrinkage` and `ridge`.
            targets: float32 (n_rows, target width).
            known: bool (n_rows,), whether a row has a target.
            counts: int64 (n_rows,), training interactions of each row.
            width: of the tapped layer.
        """
        self.pull = (settings.shrinkage / (counts + settings.shrinkage)).to(targets)
        self._targets, self._known, self._ridge = targets, known, settings.ridge
        self._vectors = targets.new_zeros(len(targets), width)
        self._seen = torch.zeros_like(known)
        self._foretold: Tensor | None = None

    def refit(self) -> None:
        """Learn the map from the newest vectors, if there are any."""
        rows = (self._seen & self._known).nonzero().flatten()
        if len(rows) == 0:
            return
        weights = 1 - self.pull[rows, None]
        shares = weights / weights.sum()
        targets, vectors = self._targets[rows], self._vectors[rows]
        middle, mean = (shares * targets).sum(dim=0), (shares * vectors).sum(dim=0)
        targets = targets - middle
        system = targets.T @ (weights * targets)
        system.diagonal().add_(self._ridge * targets.square().sum(dim=1).mean())
        fitted = torch.linalg.solve(system, targets.T @ (weights * (vectors - mean)))
        foretold = targets @ fitted
        spread = (weights * (vectors - mean).square()).sum() / (weights * foretold.square()).sum()
        self._foretold = mean + spread.sqrt() * ((self._targets - middle) @ fitted)

    def pair(self, ids: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor] | None:
        """Note rows' vectors, and return them and what they are drawn to; None without a map.

        Args:
            ids: int64 (n,).
            vectors: float (n, width).

        Returns:
            Two tensors like `vectors`, each row times the root of its weight, so that their mean
            squared error is the weighted one.
        """
        self._vectors[ids] = vectors.detach()
        self._seen[ids] = True
        if self._foretold is None:
            return None
        root = self.pull[ids, None].sqrt()
        return root * vectors, root * self._foretold[ids]

    def state(self) -> dict[str, Any]:
        """What the next map is learned from."""
        return {"vectors": self._vectors, "seen": self._seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._vectors, self._seen = state["vectors"], state["seen"]
