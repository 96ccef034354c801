"""AlphaRec (Sheng et al. 2024, arXiv 2407.05441): item texts and propagation, no vectors of ids.

A frozen embedding of each item's text; a user is the mean of the items in the training history. One
MLP maps both, LightGCN's propagation smooths the result, and cosines are trained by InfoNCE against
items drawn at random. Without knowledge (the baseline) the frozen vectors are random numbers.

models:
  models.recommenders.comparators.alpha_rec:AlphaRec:
    transfer: {side: items, alpha: 1.0}
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation
from models.recommenders.comparators.graph import WithTexts, adjacency
from models.recommenders.speedups import convolved


class AlphaRec(WithTexts):
    """The score of a user and an item is the cosine of their propagated vectors."""

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
        super().__init__(data)
        self._n_layers = n_layers
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
        hidden, width = self._shape
        texts = functional.normalize(texts, dim=1)
        texts[0] = 0  # padding
        super()._take(texts)
        layers = nn.Linear(texts.shape[1], hidden), nn.LeakyReLU(), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(*layers).to(self.item_texts.device)

    def _propagated(self) -> tuple[Tensor, Tensor]:
        """Unit vectors of users and of items."""
        mapped = self.mlp(torch.cat((self.user_texts, self.item_texts)))
        vectors = functional.normalize(convolved(self._graph, self._n_layers, mapped), dim=1)
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
