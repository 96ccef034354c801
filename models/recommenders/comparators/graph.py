"""What comparators share: frozen texts, the normalised adjacency matrix, the InfoNCE loss."""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs
from models.recommenders.speedups import normalised_adjacency


class WithTexts(nn.Module):
    """A module that freezes items' texts, of any width, and users' means of them.

    Attributes:
        item_texts: float32 (n_items, width of the texts).
        user_texts: float32 (n_users, width of the texts).
    """

    item_texts: Tensor
    user_texts: Tensor

    def __init__(self, data: Pairs) -> None:
        """Keep the training pairs; the subclass takes its first texts."""
        super().__init__()
        self._data = data

    def _take(self, texts: Tensor) -> None:
        """Freeze `texts`, float32 (n_items, any); a subclass begins what depends on the width."""
        texts = texts.to(self._data.users.device)
        self.register_buffer("item_texts", texts)
        self.register_buffer("user_texts", history_means(self._data, texts))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *given: Any) -> None:
        """Weights may be of texts of another width."""
        found = state[f"{prefix}item_texts"]
        if found.shape != self.item_texts.shape:
            self._take(torch.zeros(found.shape))
        super()._load_from_state_dict(state, prefix, *given)


def adjacency(data: Pairs) -> Tensor:
    """D^-1/2 A D^-1/2 of the bipartite graph: sparse float32 (n, n), n = n_users + n_items."""
    users, items = data.users.cpu().numpy(), data.items.cpu().numpy()
    ones = np.ones(len(users), np.float32)
    pairs = sparse.coo_matrix((ones, (users, items)), (data.n_users, data.n_items))
    return normalised_adjacency(pairs).to(data.users.device)


def history_means(data: Pairs, vectors: Tensor) -> Tensor:
    """Means of the items' vectors over users' training histories: float32 (n_users, width)."""
    sums = torch.zeros(data.n_users, vectors.shape[1], device=vectors.device)
    sums.index_add_(0, data.users, vectors[data.items])
    counts = torch.bincount(data.users, minlength=data.n_users).clamp(min=1)
    return sums / counts[:, None]


def info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of each row's own partner among all of a batch, by cosine: a scalar."""
    left, right = functional.normalize(left, dim=1), functional.normalize(right, dim=1)
    own = torch.arange(len(left), device=left.device)
    return functional.cross_entropy(left @ right.T / temperature, own)
