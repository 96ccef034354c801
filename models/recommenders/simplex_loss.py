"""SimpleX's training loss without a copy of every history's vectors.

RecBole (recbole/model/general_recommender/simplex.py) gathers the up to 50 vectors of each row's
history, (batch, 50, width) floats, only to add them up and to take their norm. Both follow from
the item table: a bag of embeddings is summed as it is read, and the squared norm is each item's
squared norm times how often it occurs.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional


def applies_to(module: Any) -> bool:
    """Whether the histories are averaged; attention needs their vectors one by one."""
    return bool(module.aggregator == "mean" and not module.require_pow)


def loss(module: Any, interaction: Any) -> Tensor:
    """RecBole's `SimpleX.calculate_loss`, equal up to rounding: float (1,)."""
    negatives = interaction[module.NEG_ITEM_ID].reshape(module.neg_seq_len, -1).T
    n = len(negatives)
    users, items = interaction[module.USER_ID][:n], interaction[module.ITEM_ID][:n]
    user_vectors = module.user_emb(users)
    item_vectors = module.item_emb(items)
    negative_vectors = module.item_emb(negatives)
    summed, squared = _histories(module, users)
    blend = module.get_UI_aggregation(
        user_vectors, summed.unsqueeze(1), module.history_item_len[users]
    )
    blend = module.dropout(blend)
    liked = torch.relu(1 - module.get_cos(blend, item_vectors.unsqueeze(1)))
    others = torch.relu(module.get_cos(blend, negative_vectors) - module.margin)
    contrast = (liked + others.mean(1, keepdim=True) * module.negative_weight).mean()
    norms = user_vectors.norm() + item_vectors.norm() + squared.sqrt() + negative_vectors.norm()
    return cast(Tensor, contrast + module.reg_weight * norms / n)


def _histories(module: Any, users: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of each row's history float (n, width), and all those vectors' squared norm."""
    unique, place, counts = users.unique(return_inverse=True, return_counts=True)
    history = module.history_item_id[unique]
    table = module.item_emb.weight
    summed = functional.embedding_bag(history, table, mode="sum", padding_idx=0)
    occurrences = torch.bincount(
        history.reshape(-1),
        weights=counts.to(table.dtype).repeat_interleave(history.shape[1]),
        minlength=len(table),
    )
    occurrences[0] = 0  # padding
    squared = occurrences.to(table.dtype) @ table.square().sum(dim=1)
    return summed[place], squared
