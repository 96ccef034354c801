"""What comparators share whose scores are linear in the training history."""

from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from models.arrow import Floats, Singles
from models.recommenders.batches import Pairs


class ItemWeights(nn.Module):
    """The score of an item is the sum of its weights for the items of the training history.

    Attributes:
        weights: float32 (n_items, n_items), from row j of the history to the scored column i.
    """

    loader: ClassVar = None
    weights: Tensor

    def __init__(self, data: Pairs) -> None:
        """Keep the training matrix; a subclass computes the weights."""
        super().__init__()
        pairs = data.users.cpu().numpy(), data.items.cpu().numpy()
        ones = np.ones(len(pairs[0]), np.float32)
        self._history = sparse.csr_matrix((ones, pairs), shape=(data.n_users, data.n_items))

    def _take(self, weights: Floats | Singles) -> None:
        """Score by these from now on, float (n_items, n_items)."""
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32, copy=False)))

    def scores(self, users: Tensor) -> Tensor:
        """All items' scores, float32 (len(users), n_items)."""
        found = self._history[users.cpu().numpy()] @ self.weights.cpu().numpy()
        return torch.from_numpy(found).to(users.device)
