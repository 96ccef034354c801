"""AlphaRec (Sheng et al. 2024, arXiv 2407.05441): item texts and propagation, no vectors of ids.

A frozen embedding of each item's text; a user is the mean of the items in the training history. One
MLP maps both, LightGCN's propagation smooths the result, and cosines are trained by InfoNCE against
items drawn at random. Without knowledge (the baseline) the frozen vectors are random numbers.

models:
  models.recommenders.comparators.alpha_rec:AlphaRec:
    transfer: {side: items, alpha: 1.0}
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation
from models.recommenders.comparators.graph import adjacency, history_means


class AlphaRec(nn.Module):
    """The score of a user and an item is the cosine of their propagated vectors."""

    texts: Tensor

    def __init__(
        self,
        data: Pairs,
        width: int = 64,
        hidden: int = 192,
        n_layers: int = 2,
        temperature: float = 0.15,
        negatives: int = 256,
        blank: int = 384,
    ) -> None:
        """Set the graph up.

        Args:
            data: the training pairs.
            width: of the MLP's output.
            hidden: width of its inner layer.
            n_layers: steps of propagation, whose results are averaged with the MLP's.
            temperature: of the softmax.
            negatives: items drawn for each batch, the same for all of its rows.
            blank: width of the random vectors that stand for texts where there are none.
        """
        super().__init__()
        self._data, self._n_layers = data, n_layers
        self._temperature, self._negatives = temperature, negatives
        self._shape = hidden, width
        self._graph = adjacency(data)
        self._take(torch.randn(data.n_items, blank))

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Take the items' embeddings; with `alpha` 0, or none, the random ones stay."""
        if alpha > 0 and side.items is not None:
            texts = torch.from_numpy(np.asarray(side.items, np.float32))
            if side.items_known is not None:
                texts = torch.where(torch.from_numpy(side.items_known)[:, None], texts, 0.0)
            self._take(texts)

    def _take(self, texts: Tensor) -> None:
        """Freeze `texts`, float32 (n_items, any), and begin an MLP of that width."""
        data, (hidden, width) = self._data, self._shape
        texts = functional.normalize(texts, dim=1).to(data.users.device)
        texts[0] = 0  # padding
        self.register_buffer("texts", torch.cat((history_means(data, texts), texts)))
        layers = nn.Linear(texts.shape[1], hidden), nn.LeakyReLU(), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(*layers).to(texts.device)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *given: Any) -> None:
        """Weights may be of texts of another width."""
        found = state[f"{prefix}texts"]
        if found.shape != self.texts.shape:
            self._take(torch.zeros(self._data.n_items, found.shape[1]))
        super()._load_from_state_dict(state, prefix, *given)

    def _propagated(self) -> tuple[Tensor, Tensor]:
        """Unit vectors of users and of items."""
        layers = [self.mlp(self.texts)]
        for _ in range(self._n_layers):
            layers.append(self._graph @ layers[-1])
        vectors = functional.normalize(torch.stack(layers).mean(dim=0), dim=1)
        users, items = vectors.split((self._data.n_users, self._data.n_items))
        return users, items

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """A user's item against items drawn at random, by softmax over cosines."""
        users, items = self._propagated()
        mine = users[batch["user_id"]]
        drawn = torch.randint(1, self._data.n_items, (self._negatives,), device=mine.device)
        liked = (mine * items[batch["item_id"]]).sum(dim=1, keepdim=True)
        logits = torch.cat((liked, mine @ items[drawn].T), dim=1) / self._temperature
        return functional.cross_entropy(logits, torch.zeros_like(batch["user_id"]))

    def scores(self, users: Tensor) -> Tensor:
        """Cosines with all items, float (len(users), n_items)."""
        of_users, items = self._propagated()
        return of_users[users] @ items.T
