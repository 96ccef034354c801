"""XSimGCL (Yu et al. 2023, "XSimGCL: towards extremely simple graph contrastive learning", TKDE).

LightGCN with small random noise at each layer, and a contrast between the final vectors and those
of one layer. It sees no text: a gain that it gives as well is no knowledge.

models:
  models.recommenders.comparators.xsimgcl:XSimGCL: {}
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.recommenders.batches import Pairs
from models.recommenders.comparators.graph import adjacency, info_nce
from models.recommenders.speedups import product


class XSimGCL(nn.Module):
    """The score of a user and an item is the product of their propagated vectors."""

    taps: ClassVar = {"users": "user_vectors", "items": "item_vectors"}

    def __init__(
        self,
        data: Pairs,
        width: int = 64,
        n_layers: int = 2,
        noise: float = 0.2,
        contrast: float = 0.2,
        temperature: float = 0.2,
        contrast_layer: int = 1,
        reg_weight: float = 1e-4,
    ) -> None:
        """Draw the vectors (Xavier) and set the graph up.

        Args:
            data: the training pairs.
            width: of the vectors.
            n_layers: steps of propagation, whose results are averaged.
            noise: length of the noise that is added to each row at each layer (ε).
            contrast: weight of the contrast (λ).
            temperature: of the contrast (τ).
            contrast_layer: the layer that the final vectors are contrasted with (l*).
            reg_weight: of the squared lengths of the batch's own vectors.
        """
        super().__init__()
        self.user_vectors = nn.Embedding(data.n_users, width)
        self.item_vectors = nn.Embedding(data.n_items, width)
        for table in (self.user_vectors, self.item_vectors):
            nn.init.xavier_uniform_(table.weight)
        self._graph, self._sizes = adjacency(data), (data.n_users, data.n_items)
        self._n_layers, self._noise, self._layer = n_layers, noise, contrast_layer
        self._contrast, self._temperature, self._reg = contrast, temperature, reg_weight

    def _layers(self, noise: float) -> list[Tensor]:
        vectors = torch.cat((self.user_vectors.weight, self.item_vectors.weight))
        layers = []
        for _ in range(self._n_layers):
            vectors = product(self._graph, vectors)
            if noise:
                drawn = functional.normalize(torch.rand_like(vectors), dim=1)
                vectors = vectors + vectors.sign() * drawn * noise
            layers.append(vectors)
        return layers

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """BPR on the final vectors, the contrast of users and of items, and the regulariser."""
        layers = self._layers(self._noise)
        users, items = torch.stack(layers).mean(dim=0).split(self._sizes)
        u, i, j = batch["user_id"], batch["item_id"], batch["neg_item_id"]
        bpr = -functional.logsigmoid((users[u] * (items[i] - items[j])).sum(dim=1)).mean()
        before_users, before_items = layers[self._layer - 1].split(self._sizes)
        some, kind = u.unique(), i.unique()
        contrast = info_nce(users[some], before_users[some], self._temperature)
        contrast = contrast + info_nce(items[kind], before_items[kind], self._temperature)
        own = self.user_vectors(u), self.item_vectors(i), self.item_vectors(j)
        lengths = sum((each.square().sum() for each in own), torch.zeros(())) / len(u)
        return bpr + self._contrast * contrast + self._reg * lengths

    def scores(self, users: Tensor) -> Tensor:
        """All items' scores, without noise: float (len(users), n_items)."""
        of_users, items = torch.stack(self._layers(0.0)).mean(dim=0).split(self._sizes)
        found: Tensor = of_users[users] @ items.T
        return found
