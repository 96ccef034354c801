"""RecBole's arithmetic at less cost: the same results up to rounding, or the same distribution.

`speed_up` puts each replacement on a fresh module and leaves parameters, taps and state alone.
`large_graph` does so for a class, where what RecBole makes of it does not fit into memory.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

_DRAWS = 1 << 16
"""A dropout draw has 16 bits, so that the rate is met to 1/65536."""
_READ_HISTORIES = ("MultiVAE", "MultiDAE", "RecVAE", "CDAE")
_SPARSE = 0.1
"""Of an input's entries. With more that are not 0, the dense product takes no longer."""
_CACHED_PAIRS = 1 << 14
"""Pairs whose hidden layer of 128 floats stays in a core's cache."""


def speed_up(name: str, module: Any) -> None:
    """Replace the slow parts of `module`, RecBole's model `name`."""
    if name == "SimpleX" and module.aggregator == "mean" and not module.require_pow:
        module.calculate_loss = partial(simplex_loss, module)
    if name == "FISM":
        module.full_sort_predict = partial(_fism_scores, module)
    if name == "NeuMF":
        if module.mf_train and module.mlp_train:
            module.full_sort_predict = partial(_neumf_scores, module)
        layers = module.mlp_layers.mlp_layers
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Dropout):
                layers[place] = Dropout(layer.p)
    if name in _READ_HISTORIES:
        _read_histories(module)


def _read_histories(module: Any) -> None:
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.in_features == module.n_items:
            layer.__class__ = SparseInput
            if hasattr(module, "drop_out"):  # of MultiVAE and MultiDAE, right before the layer
                layer.rate, module.drop_out = module.drop_out, 0.0


def large_graph(lightgcn: type) -> type:
    """Extend RecBole's LightGCN (recbole/model/general_recommender/lightgcn.py).

    RecBole keeps two Python objects for each interaction while it builds the graph, multiplies by
    coordinates, three times as slow as by compressed rows, and holds all layers twice.
    """

    def forward(self: Any) -> tuple[Tensor, Tensor]:
        vectors = self.get_ego_embeddings()
        mean = convolved(self.norm_adj_matrix, self.n_layers, vectors)
        users, items = torch.split(mean, [self.n_users, self.n_items])
        return users, items

    def calculate_loss(self: Any, interaction: Any) -> Tensor:
        self.restore_user_e = self.restore_item_e = None
        users = interaction[self.USER_ID]
        items, others = interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]
        # Read before the layers, so that their gradient, as large as all vectors, comes after.
        own = self.user_embedding(users), self.item_embedding(items), self.item_embedding(others)
        of_users, of_items = self.forward()
        mine = of_users[users]
        scores = [(mine * of_items[kind]).sum(dim=1) for kind in (items, others)]
        penalty = self.reg_loss(*own, require_pow=self.require_pow)
        return cast(Tensor, self.mf_loss(*scores) + self.reg_weight * penalty)

    def get_norm_adj_mat(self: Any) -> Tensor:
        pairs, self.interaction_matrix = self.interaction_matrix, None  # of no further use
        return normalised_adjacency(pairs)

    ours = forward, calculate_loss, get_norm_adj_mat
    return type(lightgcn.__name__, (lightgcn,), {f.__name__: f for f in ours})


def normalised_adjacency(pairs: sparse.coo_matrix) -> Tensor:
    """D^(-1/2) A D^(-1/2) of users, then items: compressed rows, float32, indices int32.

    With these, torch on a CPU multiplies as they are; int64 ones it converts at each product.
    """
    rated = sparse.csr_matrix((np.ones(pairs.nnz, np.float32), (pairs.row, pairs.col)), pairs.shape)
    graph = sparse.bmat([[None, rated], [rated.T, None]], format="csr", dtype=np.float32)
    scale = (graph.getnnz(axis=1) + 1e-7) ** -0.5
    values = np.repeat(scale, np.diff(graph.indptr)) * scale[graph.indices]
    rows, columns = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices)
    weights = torch.from_numpy(values.astype(np.float32))
    with _beta():
        return torch.sparse_csr_tensor(rows, columns, weights, graph.shape)


@contextmanager
def _beta() -> Iterator[None]:
    """Keep torch's warning quiet that it supports compressed rows as a beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def convolved(graph: Tensor, layers: int, vectors: Tensor) -> Tensor:
    """The mean of float (n, width) and its products with the symmetric graph's powers."""
    return cast(Tensor, cast(Any, _Convolution).apply(graph, layers, vectors))


def product(graph: Tensor, vectors: Tensor) -> Tensor:
    """The symmetric graph's product with float (n, width), one layer."""
    return cast(Tensor, cast(Any, _Product).apply(graph, vectors))


class _Product(torch.autograd.Function):
    """A symmetric graph's product; torch would transpose compressed rows for the gradient."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, vectors: Tensor) -> Tensor:
        """Multiply."""
        ctx.graph = graph
        return graph @ vectors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """Multiply the gradient alike."""
        return None, ctx.graph @ gradient.contiguous()


class _Convolution(torch.autograd.Function):
    """LightGCN's layers. By a symmetric graph, the gradient's way back is the same as the way."""

    @staticmethod
    def forward(ctx: Any, graph: Tensor, layers: int, vectors: Tensor) -> Tensor:
        """Return the mean of float (n, width) and its products with the graph's powers."""
        ctx.graph, ctx.layers = graph, layers
        return _mean_of_layers(graph, layers, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        """Convolve the gradient alike."""
        return None, None, _mean_of_layers(ctx.graph, ctx.layers, gradient.contiguous())


def _mean_of_layers(graph: Tensor, layers: int, vectors: Tensor) -> Tensor:
    """(1 + A (1 + A (1 + …))) x / (layers + 1): two tensors beside `vectors` at a time."""
    total = vectors
    for _ in range(layers):
        total = torch.addmm(vectors, graph, total)
    return total.div_(layers + 1) if layers else total.clone()


class SparseInput(nn.Linear):
    """A layer that multiplies what is not zero of its input: of histories, a few in a hundred.

    Attributes:
        rate: of the input's entries that training drops.
    """

    rate = 0.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Multiply as `nn.Linear` does: float (n, in_features) to (n, out_features)."""
        rate = self.rate if self.training else 0.0
        if input.device.type == "cpu" and input.dtype == torch.float32 and not input.requires_grad:
            with _beta():
                rows = input.to_sparse_csr()
            if rows.values().numel() < _SPARSE * input.numel():
                rows = _dropped(rows, rate) if rate else rows
                with torch.autocast("cpu", enabled=False):  # has no sparse product in bfloat16
                    found: Tensor = cast(Any, _SparseProduct).apply(rows, self.weight, self.bias)
                return found
        return super().forward(functional.dropout(input, rate))


def _dropped(rows: Tensor, rate: float) -> Tensor:
    """Compressed rows without a share of their entries; the others are scaled up."""
    kept = torch.rand_like(rows.values()) >= rate
    ends = functional.pad(kept.cumsum(0), (1, 0))[rows.crow_indices()]
    values = rows.values()[kept] / (1 - rate)
    columns = rows.col_indices()[kept]
    with _beta():
        return torch.sparse_csr_tensor(ends, columns, values, rows.shape, device=rows.device)


class _SparseProduct(torch.autograd.Function):
    """x Wᵀ + b and its gradients, x by its compressed rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Multiply float (n, width) by `weight`."""
        ctx.rows = rows
        return torch.addmm(bias, rows, weight.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        """Pass the gradient on to the weight and the bias; the input is data."""
        rows = ctx.rows
        columns = rows.crow_indices(), rows.col_indices(), rows.values()
        with _beta():
            turned = torch.sparse_csc_tensor(*columns, rows.shape[::-1], device=rows.device)
        return None, (turned.to_sparse_csr() @ gradient).T, gradient.sum(dim=0)


class Dropout(nn.Dropout):
    """Dropout that draws four masks from each 64-bit random number; torch's CPU draws one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Set hidden entries to zero and scale the rest up, as `nn.Dropout` does."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        n = input.numel()
        draws = torch.empty(-(-n // 4), dtype=torch.int64, device=input.device)
        draws.random_(torch.iinfo(torch.int64).min, None)
        kept = draws.view(torch.int16)[:n].view(input.shape) >= round(self.p * _DRAWS) - _DRAWS // 2
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))


def simplex_loss(module: Any, interaction: Any) -> Tensor:
    """Compute SimpleX's training loss without a copy of every history's vectors: float (1,).

    RecBole (recbole/model/general_recommender/simplex.py) gathers the up to 50 vectors of each
    row's history, (batch, 50, width) floats, only to add them up and to take their norm. Both
    follow from the item table: a bag of embeddings is summed as it is read, and the squared norm
    is each item's squared norm times how often it occurs.
    """
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


def _neumf_scores(model: Any, interaction: Any) -> Tensor:
    """All-item scores of NeuMF without a copy of both vectors per pair: float32 (n, n_items).

    The first MLP layer is linear in [user; item], so both halves are computed once per user
    and once per item and added per pair; scores are logits, which rank as `predict` does.
    """
    users = interaction[model.USER_ID]
    layers = [layer for layer in model.mlp_layers.mlp_layers if not isinstance(layer, nn.Dropout)]
    first, rest = layers[0], layers[1:]
    width = model.mlp_embedding_size
    items_first = model.item_mlp_embedding.weight @ first.weight[:, width:].T + first.bias
    users_first = model.user_mlp_embedding(users) @ first.weight[:, :width].T
    mf_weight, mlp_weight = model.predict_layer.weight[0].split(
        [model.mf_embedding_size, model.predict_layer.in_features - model.mf_embedding_size]
    )
    scores: Tensor = (model.user_mf_embedding(users) * mf_weight) @ model.item_mf_embedding.weight.T
    scores = scores + model.predict_layer.bias
    if torch.is_grad_enabled():  # an alignment draws the scores, so that nothing is overwritten
        hidden = nn.Sequential(*rest)(users_first[:, None] + items_first)
        return cast(Tensor, scores + hidden @ mlp_weight)
    block = max(_CACHED_PAIRS // len(items_first), 1)
    widths = [len(first.bias), *(part.out_features for part in rest if isinstance(part, nn.Linear))]
    # Written again and again: fresh pages would cost as much as the arithmetic.
    buffers = [torch.empty(block * len(items_first), w, device=users.device) for w in widths]
    for start in range(0, len(users), block):
        rows = slice(start, start + block)
        hidden = _mlp(rest, users_first[rows], items_first, buffers)
        scores[rows] += (hidden @ mlp_weight).view(-1, len(items_first))
    return scores


def _mlp(
    layers: list[nn.Module], users_first: Tensor, items_first: Tensor, buffers: list[Tensor]
) -> Tensor:
    """The last hidden layer of every user with every item: float32 (users · items, width)."""
    n = len(users_first) * len(items_first)
    hidden, *others = (buffer[:n] for buffer in buffers)
    sums = hidden.view(len(users_first), *items_first.shape)
    torch.add(users_first[:, None, :], items_first, out=sums)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            hidden = torch.addmm(layer.bias, hidden, layer.weight.T, out=others.pop(0))
        else:
            hidden = hidden.relu_() if isinstance(layer, nn.ReLU) else layer(hidden)
    return hidden


def _fism_scores(model: Any, interaction: Any) -> Tensor:
    """FISM scores by one product: similarity is linear in the sum of the history's vectors.

    RecBole repeats every user's history once per item.
    """
    users = interaction[model.USER_ID]
    history = model.item_src_embedding(model.history_item_matrix[users])
    summed = (history * model.mask_mat[users].unsqueeze(-1)).sum(dim=1)
    coefficient = model.history_lens[users].float().pow(-model.alpha).unsqueeze(1)
    products = (summed * coefficient) @ model.item_dst_embedding.weight.T
    return cast(Tensor, products + model.user_bias[users].unsqueeze(1) + model.item_bias)
