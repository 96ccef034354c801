"""The map of the alignment `mapped`: what targets foretell of a layer, by ridge regression.

A row's vector h_i is drawn to t_i A, its target under a map that all rows share. Targets may have
any axes and any width, since A is learned. It starts as the targets' principal axes on the layer's
scale. Before each later epoch it moves by a ridge regression, in closed form, of what it missed:

    A ← A + argmin_B Σ_i n_i/(n_i + k) ‖h_i − t_i A − t_i B‖² + ρ·τ·‖B‖²,

over the rows with a target, both sides centred, where n_i are a row's training interactions, k is
`transfer.shrinkage`, ρ `transfer.ridge`, and τ the mean square norm of the targets, which makes ρ
free of their scale. A ridge that drew A itself to 0 would do so again each epoch, and the layer
would follow: both collapse. The pull on a row is weighted k/(n_i + k), as in a shrinkage
estimator: little where its interactions tell enough. A table's row that has none becomes t_i A.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.config import Transfer


class RidgeMap:
    """The map of one side, with the newest vector of each row that was trained.

    Attributes:
        pull: float32 (n_rows,), the weight k/(n + k) of each row.
    """

    def __init__(
        self, settings: Transfer, targets: Tensor, known: Tensor, counts: Tensor, width: int
    ) -> None:
        """Start with the targets' principal axes, of unit variance.

        `targets` are float32 (n_rows, target width), `known`, bool (n_rows,), whether a row has
        one, `counts`, int64 (n_rows,), its training interactions; `width` is the tapped layer's.
        """
        self.pull = (settings.shrinkage / (counts + settings.shrinkage)).to(targets)
        self._targets, self._known, self._ridge = targets, known, settings.ridge
        self._vectors = targets.new_zeros(len(targets), width)
        self._seen = torch.zeros_like(known)
        self._foretold: Tensor | None = None
        self._new = (known & (counts == 0)).nonzero().flatten()
        inside = targets[known] - targets[known].mean(dim=0)
        axes = torch.linalg.eigh(inside.T @ inside)[1].flip(1)[:, :width]
        axes = axes / (inside @ axes).square().mean().sqrt().clamp(min=1e-12)
        self._map = functional.pad(axes, (0, width - axes.shape[1]))

    def refit(self) -> None:
        """Move the map by the ridge regression of what it missed of the newest vectors."""
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
        missed = vectors - mean - targets @ self._map
        self._map = self._map + torch.linalg.solve(system, targets.T @ (weights * missed))
        self._foretold = mean + (self._targets - middle) @ self._map

    def pair(self, ids: Tensor, vectors: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Note rows' vectors, float (n, width), and return them and what they are drawn to.

        `ids` are int64 (n,), `scale` the spread of what the first map foretells.

        Returns:
            Two tensors like `vectors`, each row times the root of its weight, so that their mean
            squared error is the weighted one.
        """
        self._vectors[ids] = vectors.detach()
        self._seen[ids] = True
        if self._foretold is None:
            self._map = scale * self._map
            middle = self._targets[self._known].mean(dim=0)
            self._foretold = (self._targets - middle) @ self._map
        root = self.pull[ids, None].sqrt()
        return root * vectors, root * self._foretold[ids]

    def place_new(self, table: Tensor) -> None:
        """Give rows of `table`, float (n_rows, width), without an interaction what is foretold."""
        if self._foretold is not None:
            table[self._new] = self._foretold[self._new].to(table)

    def state(self) -> dict[str, Any]:
        """What the next map is learned from."""
        return {"vectors": self._vectors, "seen": self._seen, "map": self._map}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._vectors, self._seen, self._map = state["vectors"], state["seen"], state["map"]
