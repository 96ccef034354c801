"""Foretold: EASE for items with a history; others' scores are foretold from their texts.

A ridge regression of the scores of items with a history on their texts' embeddings foretells those
of all other items, for each user: what `llmkt nightly` does for new items of any model (see
`models.publishing.foretelling`, from which it differs in nothing but that its ridge is tuned).

models:
  models.recommenders.comparators.foretold:Foretold:
    transfer: {side: items, alpha: 1.0}
"""

from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from models.arrow import Floats
from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation, fit, unit_vectors


class Foretold(nn.Module):
    """The score of an item is linear in the training history.

    Attributes:
        weights: float32 (n_items, n_items), from item j of the history to the scored item i.
    """

    loader: ClassVar = None
    weights: Tensor

    def __init__(self, data: Pairs, reg_weight: float = 500.0, ridge: float = 10.0) -> None:
        """Fit EASE; items without a history get the others' mean score until texts come.

        Args:
            data: the training pairs.
            reg_weight: EASE's λ.
            ridge: of the regression, against texts of unit length.
        """
        super().__init__()
        pairs = data.users.cpu().numpy(), data.items.cpu().numpy()
        ones = np.ones(len(pairs[0]), np.float32)
        self._history = sparse.csr_matrix((ones, pairs), shape=(data.n_users, data.n_items))
        self._ridge, self._learnt = ridge, fit(self._history, reg_weight).item_weights
        self.take_prior(0.0, SideInformation())

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Foretell items without a history; `alpha` is how far from the mean of all others."""
        n = self._history.shape[1]
        unit, known = unit_vectors("Foretold", "items", side.items, side.items_known, n)
        had = np.asarray(self._history.sum(axis=0)).ravel() > 0
        learnt, new = np.flatnonzero(had & known if known.any() else had), np.flatnonzero(~had)
        texts: Floats = unit[learnt] - unit[learnt].mean(axis=0)
        theirs = np.where(known[new, None], unit[new] - unit[learnt].mean(axis=0), 0.0)
        system = texts.T @ texts
        system[np.diag_indices_from(system)] += self._ridge
        shares = alpha * theirs @ np.linalg.solve(system, texts.T) + 1 / len(learnt)
        found = self._learnt.copy()
        found[:, new] = found[:, learnt] @ shares.T.astype(np.float32)
        self.register_buffer("weights", torch.from_numpy(found))

    def scores(self, users: Tensor) -> Tensor:
        """All items' scores, float32 (len(users), n_items)."""
        found = self._history[users.cpu().numpy()] @ self.weights.cpu().numpy()
        return torch.from_numpy(found).to(users.device)
