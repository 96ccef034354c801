"""Foretold: EASE for items with a history; others' scores are foretold from their texts.

A ridge regression of the scores of items with a history on their texts' embeddings foretells those
of all other items, for each user: what `llmkt nightly` does for new items of any model (see
`models.publishing.foretelling`, from which it differs in nothing but that its ridge is tuned).

models:
  models.recommenders.comparators.foretold:Foretold:
    transfer: {side: items, alpha: 1.0}
"""

import numpy as np

from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation, fit, ridge_shares, unit_vectors
from models.recommenders.comparators.item_weights import ItemWeights


class Foretold(ItemWeights):
    """The score of an item is linear in the training history."""

    def __init__(self, data: Pairs, reg_weight: float = 500.0, ridge: float = 10.0) -> None:
        """Fit EASE; items without a history get the others' mean score until texts come.

        Args:
            data: the training pairs.
            reg_weight: EASE's λ.
            ridge: of the regression, against texts of unit length.
        """
        super().__init__(data)
        self._ridge, self._learnt = ridge, fit(self._history, reg_weight).item_weights
        self.take_prior(0.0, SideInformation())

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Foretell items without a history; `alpha` is how far from the mean of all others."""
        n = self._history.shape[1]
        unit, known = unit_vectors("Foretold", "items", side.items, side.items_known, n)
        had = np.asarray(self._history.sum(axis=0)).ravel() > 0
        learnt, new = np.flatnonzero(had & known if known.any() else had), np.flatnonzero(~had)
        shares = ridge_shares(unit, learnt, new, self._ridge)
        shares = np.where(known[new, None], alpha * shares, 0.0) + 1 / len(learnt)
        found = self._learnt.copy()
        found[:, new] = found[:, learnt] @ shares.T.astype(np.float32)
        self._take(found)
