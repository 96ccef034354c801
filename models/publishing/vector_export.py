"""A trained model's vectors of users and items, for a nearest-neighbour index.

What is read is the tap's: the vector that profiles are aligned with, which for most models is the
one that is scored (see `models.recommenders.registry`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from models.arrow import Ints, Singles
from models.config import Side, Tap
from models.recommenders.recbole_trainers import seed_all
from models.recommenders.recommender import Recommender
from models.recommenders.registry import described
from models.transfer.hooks import HookManager

_COMPARED_USERS = 64
_CLOSE = 1e-4


@dataclass(frozen=True)
class Vectors:
    """Vectors by internal ids.

    Attributes:
        ids: int64 (n,), ascending, without padding.
        matrix: float32 (n, width).
        meaning: what they are, in words.
    """

    ids: Ints
    matrix: Singles
    meaning: str


@torch.no_grad()
def vectors(recommender: Recommender, side: Side, tap: Tap | None = None) -> Vectors | None:
    """The vectors of all users that were trained, or of all items, at a tap or the default one.

    The recommender is left in evaluation mode.

    Returns:
        None for a model that has no vector of its own for each, and where what is tapped depends on
        the batch: on the place in a sequence, or on noise.
    """
    tap = tap or recommender.entry.default_tap(side)
    is_sequence = recommender.entry.family == "sequential" and side == "users"
    if tap is None or is_sequence or recommender.entry.loader is None:
        return None
    recommender.module.eval()
    matrix, rows = HookManager(recommender.module, tap).matrix(), recommender.rows(side, tap.name)
    if matrix is not None:
        table = matrix[rows.start : rows.stop]
    else:
        found, again = (_collected(recommender, tap, side) for _ in range(2))
        if (
            found is None
            or again is None
            or not torch.equal(found.nan_to_num(), again.nan_to_num())
        ):
            return None
        table = found
    n = recommender.n_users if side == "users" else recommender.n_items
    present = np.unique(recommender.train_users) if side == "users" else np.arange(1, n)
    chosen = table[torch.from_numpy(present)].float().cpu()
    if not torch.isfinite(chosen).all():
        return None
    return Vectors(present, chosen.numpy(), f"{described(tap)}, {chosen.shape[1]} wide")


def _collected(recommender: Recommender, tap: Tap, side: Side) -> Tensor | None:
    """What the tap yields in one pass over the training batches, NaN where it never does."""
    seed_all(0)
    n = recommender.n_users if side == "users" else recommender.n_items
    table: Tensor | None = None
    for ids, rows in _captured(recommender, tap, side):
        if table is None:
            table = torch.full((n, rows.shape[1]), torch.nan, device=rows.device)
        if len(rows) == 0 or len(ids) % len(rows):
            return None
        table[ids[: len(rows)]] = rows
        if tap.rows == "all":
            break
    return table


def _captured(recommender: Recommender, tap: Tap, side: Side) -> Iterator[tuple[Tensor, Tensor]]:
    """Internal ids and tapped rows, batch by batch."""
    hooks = HookManager(recommender.module, tap)
    n = recommender.n_users if side == "users" else recommender.n_items
    for batch in recommender.batches():
        with hooks.recording():
            recommender.loss(batch)
        captured = hooks.take()
        if captured is None:
            return
        rows = captured.vectors
        if tap.rows == "all":
            yield torch.arange(n, device=rows.device), rows[:n]
        elif captured.ids is not None:
            yield captured.ids - recommender.rows(side, tap.name).start, rows
        else:
            yield recommender.ids(side, batch), rows


@torch.no_grad()
def scored_by_product(recommender: Recommender, users: Vectors, items: Vectors) -> bool:
    """Whether the scores are the dot products of both, so that an index of vectors ranks alike."""
    if users.matrix.shape[1] != items.matrix.shape[1]:
        return False
    recommender.module.eval()
    some = users.ids[:_COMPARED_USERS]
    scores = cast(Any, recommender.scores(torch.from_numpy(some).to(recommender.device)))
    found = scores.float().cpu().numpy()[:, items.ids]
    product = users.matrix[: len(some)] @ items.matrix.T
    return bool(np.allclose(found, product, rtol=_CLOSE, atol=_CLOSE * np.abs(found).max()))
