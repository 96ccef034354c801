"""A hybrid: the text as features beside the vectors of ids, as in LightFM (Kula 2015, 1507.08439).

An item's vector is its own plus a learned linear map of its text's embedding, a user's its own plus
a map of the mean embedding of the training history; trained by BPR. Unlike transfer, the text is
needed whenever the model scores. Without knowledge it is BPR with biases.

models:
  models.recommenders.comparators.text_features:TextFeatures:
    transfer: {side: items, alpha: 1.0}
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation, unit_vectors
from models.recommenders.comparators.graph import WithTexts


class TextFeatures(WithTexts):
    """The score of a user and an item is the product of their vectors, and the item's bias."""

    def __init__(self, data: Pairs, width: int = 64, spread: float = 0.1) -> None:
        """Draw the vectors from N(0, `spread`)."""
        super().__init__(data)
        self._width = width
        self.user_vectors = nn.Embedding(data.n_users, width)
        self.item_vectors = nn.Embedding(data.n_items, width)
        self.item_bias = nn.Parameter(torch.zeros(data.n_items))
        for table in (self.user_vectors, self.item_vectors):
            nn.init.normal_(table.weight, std=spread)
        self._take(torch.zeros(data.n_items, 1))

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Take the items' embeddings, centred and of length `alpha`."""
        n = self._data.n_items
        found, known = unit_vectors("TextFeatures", "items", side.items, side.items_known, n)
        if alpha > 0 and known.any():
            self._take(torch.from_numpy(alpha * found.astype(np.float32)))

    def _take(self, texts: Tensor) -> None:
        """Freeze `texts`, float32 (n_items, any), and begin maps of that width at zero."""
        super()._take(texts)
        self.user_texts = functional.normalize(self.user_texts, dim=1)
        shape, device = (texts.shape[1], self._width), self.item_texts.device
        self.item_map = nn.Parameter(torch.zeros(shape, device=device))
        self.user_map = nn.Parameter(torch.zeros(shape, device=device))

    def _users(self, users: Tensor) -> Tensor:
        found: Tensor = self.user_vectors(users) + self.user_texts[users] @ self.user_map
        return found

    def _items(self, items: Tensor) -> Tensor:
        found: Tensor = self.item_vectors(items) + self.item_texts[items] @ self.item_map
        return found

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """A liked item scores above one drawn at random (BPR)."""
        users, liked, other = self._users(batch["user_id"]), batch["item_id"], batch["neg_item_id"]
        gap = (users * (self._items(liked) - self._items(other))).sum(dim=1)
        return -functional.logsigmoid(gap + self.item_bias[liked] - self.item_bias[other]).mean()

    def scores(self, users: Tensor) -> Tensor:
        """All items' scores, float (len(users), n_items)."""
        everything = torch.arange(self._data.n_items, device=users.device)
        return self._users(users) @ self._items(everything).T + self.item_bias
