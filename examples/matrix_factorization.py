"""A model of one's own: matrix factorisation with the BPR loss, a plain torch module.

models:
  examples/matrix_factorization.py:MatrixFactorization:
    loader: pairwise
    hyperparameters: {width: 32, learning_rate: 0.005}
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs


class MatrixFactorization(nn.Module):
    """The score of a user and an item is the product of their vectors, and the item's bias."""

    taps = {"users": "user_vectors", "items": "item_vectors"}
    """Where knowledge enters; `llmkt inspect` lists what else could be tapped."""

    def __init__(self, data: Pairs, width: int = 64, spread: float = 0.1) -> None:
        super().__init__()
        self.user_vectors = nn.Embedding(data.n_users, width)
        self.item_vectors = nn.Embedding(data.n_items, width)
        self.item_bias = nn.Parameter(torch.zeros(data.n_items))
        for table in (self.user_vectors, self.item_vectors):
            nn.init.normal_(table.weight, std=spread)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """A liked item scores above one drawn at random (Rendle et al. 2009)."""
        users = self.user_vectors(batch["user_id"])
        liked = self._score(users, batch["item_id"])
        other = self._score(users, batch["neg_item_id"])
        return -functional.logsigmoid(liked - other).mean()

    def _score(self, users: Tensor, items: Tensor) -> Tensor:
        return (users * self.item_vectors(items)).sum(dim=1) + self.item_bias[items]

    def scores(self, users: Tensor) -> Tensor:
        """All items' scores, float (len(users), n_items)."""
        return self.user_vectors(users) @ self.item_vectors.weight.T + self.item_bias
