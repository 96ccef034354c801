"""Content neighbours: an item is recommended for being like what a user has had (Lops et al. 2011).

The likeness of two items is the cosine of their texts' embeddings, or with a share 1 − α that of
who has had them (item-based neighbours, Sarwar et al. 2001). Nothing is trained. An item without a
history has neighbours by its text alone, so that it can be ranked; popularity plays no part but
through them.

models:
  models.recommenders.comparators.content_neighbours:ContentNeighbours:
    transfer: {side: items, alpha: 1.0}
"""

import numpy as np

from models.arrow import Floats
from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation, unit_vectors
from models.recommenders.comparators.item_weights import ItemWeights


class ContentNeighbours(ItemWeights):
    """An item's weights are its likeness to those of the training history."""

    def __init__(
        self, data: Pairs, neighbours: int = 30, power: float = 2.0, normalise: float = 0.5
    ) -> None:
        """Weigh items by who has had them; texts come later.

        Args:
            data: the training pairs.
            neighbours: how many items with a history count for a scored item: the most alike.
            power: of the likeness; a larger one leaves the closest.
            normalise: 1 divides an item's weights by their sum, so that no item is ahead for having
                many neighbours; 0 leaves them; between them, by a power of the sum.
        """
        super().__init__(data)
        self._settings = neighbours, power, normalise
        self.take_prior(0.0, SideInformation())

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Weigh items anew; `alpha` is the texts' share of the likeness."""
        neighbours, power, normalise = self._settings
        n = self._history.shape[1]
        together: Floats = (self._history.T @ self._history).toarray().astype(np.float64)
        had = together.diagonal()
        likeness = (1 - alpha) * together / np.sqrt(np.maximum(np.outer(had, had), 1))
        if alpha > 0:
            texts, _ = unit_vectors("ContentNeighbours", "items", side.items, side.items_known, n)
            likeness += alpha * texts @ texts.T
        np.fill_diagonal(likeness, 0)
        likeness[had == 0] = 0
        likeness = np.maximum(likeness, 0)
        if neighbours < n:
            likeness[likeness < np.partition(likeness, -neighbours, axis=0)[-neighbours]] = 0
        found = likeness**power
        found /= np.maximum(found.sum(axis=0), 1e-12) ** normalise
        self._take(found)
