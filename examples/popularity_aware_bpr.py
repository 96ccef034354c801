"""A subclass of a RecBole model: BPR whose items carry a learned share of their popularity.

models:
  examples/popularity_aware_bpr.py:PopularityAwareBPR:
    hyperparameters: {embedding_size: 32, start: 0.1}
"""

import torch
from recbole.model.general_recommender.bpr import BPR
from torch import Tensor, nn


class PopularityAwareBPR(BPR):
    """Loader, tap and other hyper-parameters are BPR's."""

    hyperparameters = {"start": 0.0}
    """The defaults of the hyper-parameters that BPR does not have."""

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        popularity = torch.zeros(self.n_items)
        popularity.index_add_(
            0, dataset.inter_feat[self.ITEM_ID], torch.ones(len(dataset.inter_feat))
        )
        self.register_buffer("popularity", popularity.log1p())
        self.weight = nn.Parameter(torch.tensor(float(config["start"])))

    def calculate_loss(self, interaction) -> Tensor:
        """BPR's loss of the products and the popularities together."""
        users, liked = self.forward(interaction[self.USER_ID], interaction[self.ITEM_ID])
        other = self.get_item_embedding(interaction[self.NEG_ITEM_ID])
        gap = (users * (liked - other)).sum(dim=1)
        popularity = self.popularity[interaction[self.ITEM_ID]]
        popularity = popularity - self.popularity[interaction[self.NEG_ITEM_ID]]
        return self.loss(gap + self.weight * popularity, torch.zeros_like(gap))

    def predict(self, interaction) -> Tensor:
        """The score of each pair."""
        products = super().predict(interaction)
        return products + self.weight * self.popularity[interaction[self.ITEM_ID]]

    def full_sort_predict(self, interaction) -> Tensor:
        """The scores of all items."""
        products = super().full_sort_predict(interaction).view(-1, self.n_items)
        return (products + self.weight * self.popularity).view(-1)
