"""All-item scores: RecBole's own where it has them, ours where that would be slow."""

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from models.errors import BadInput
from models.recommenders.ease_module import Ease

_SCORED_PAIRS = 1 << 16
_CACHED_PAIRS = 1 << 14
"""Pairs whose hidden layer of 128 floats stays in a core's cache."""


class Scorer(Protocol):
    """What of a recommender scores pairs."""

    name: str
    module: nn.Module
    n_items: int
    device: torch.device

    def interaction(self, users: Tensor) -> Any:
        """RecBole's input for scoring all items, given internal user ids int64 (n,)."""

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of pairs, float32 (n,), given internal ids int64 (n,) each."""


def all_item_scores(recommender: Scorer, users: Tensor) -> Tensor:
    """Scores of all items: float32 (len(users), n_items)."""
    model = cast(Any, recommender.module)
    if isinstance(recommender.module, Ease):
        return recommender.module.scores(users)
    if recommender.name == "NeuMF":
        return _neumf_scores(model, users)
    if recommender.name == "FISM":
        return _fism_scores(model, users)
    try:
        scores = model.full_sort_predict(recommender.interaction(users))
    except NotImplementedError:
        scores = pairwise_scores(recommender, users)
    return cast(Tensor, scores).view(len(users), recommender.n_items)


def pairwise_scores(recommender: Scorer, users: Tensor) -> Tensor:
    """Scores by the model's `predict`, a block of users against all items at a time.

    Returns:
        float32 (len(users) · n_items,).
    """
    n_items = recommender.n_items
    items = torch.arange(n_items, device=recommender.device)
    return torch.cat(
        [
            recommender.predict(part.repeat_interleave(n_items), items.repeat(len(part)))
            for part in users.split(max(_SCORED_PAIRS // n_items, 1))
        ]
    )


def _neumf_scores(model: Any, users: Tensor) -> Tensor:
    """All-item scores of RecBole's NeuMF without a copy of both vectors per pair.

    The first MLP layer is linear in [user; item], so both halves are computed once per user
    and once per item and added per pair; scores are logits, which rank as `predict` does.
    """
    if not (model.mf_train and model.mlp_train):
        raise BadInput("models.NeuMF.hyperparameters: mf_train and mlp_train must both be true")
    layers = [layer for layer in model.mlp_layers.mlp_layers if not isinstance(layer, nn.Dropout)]
    first, rest = layers[0], layers[1:]
    width = model.mlp_embedding_size
    items_first = model.item_mlp_embedding.weight @ first.weight[:, width:].T + first.bias
    users_first = model.user_mlp_embedding(users) @ first.weight[:, :width].T
    mf_weight, mlp_weight = model.predict_layer.weight[0].split(
        [model.mf_embedding_size, model.predict_layer.in_features - model.mf_embedding_size]
    )
    scores: Tensor = (model.user_mf_embedding(users) * mf_weight) @ model.item_mf_embedding.weight.T
    scores += model.predict_layer.bias
    block = max(_CACHED_PAIRS // len(items_first), 1)
    buffers = _Buffers(block * len(items_first), users.device)
    for start in range(0, len(users), block):
        rows = slice(start, start + block)
        of_users = users_first[rows, None, :]
        hidden = buffers.take(0, len(of_users) * len(items_first), items_first.shape[1])
        torch.add(of_users, items_first, out=hidden.view(len(of_users), *items_first.shape))
        for place, layer in enumerate(rest, start=1):
            if isinstance(layer, nn.Linear):
                out = buffers.take(place, len(hidden), layer.out_features)
                hidden = torch.addmm(layer.bias, hidden, layer.weight.T, out=out)
            else:
                hidden = hidden.relu_() if isinstance(layer, nn.ReLU) else layer(hidden)
        scores[rows] += (hidden @ mlp_weight).view(len(of_users), -1)
    return scores


class _Buffers:
    """Memory that is written again and again: fresh pages would cost as much as the arithmetic."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._rows, self._device = rows, device
        self._kept: dict[int, Tensor] = {}

    def take(self, place: int, rows: int, width: int) -> Tensor:
        """The buffer of a place: float32 (rows, width), with whatever it held."""
        if place not in self._kept:
            self._kept[place] = torch.empty(self._rows, width, device=self._device)
        return self._kept[place][:rows]


def _fism_scores(model: Any, users: Tensor) -> Tensor:
    """FISM scores by one product: similarity is linear in the sum of the history's vectors.

    RecBole repeats every user's history once per item.
    """
    history = model.item_src_embedding(model.history_item_matrix[users])
    summed = (history * model.mask_mat[users].unsqueeze(-1)).sum(dim=1)
    coefficient = model.history_lens[users].float().pow(-model.alpha).unsqueeze(1)
    products = (summed * coefficient) @ model.item_dst_embedding.weight.T
    return cast(Tensor, products + model.user_bias[users].unsqueeze(1) + model.item_bias)
