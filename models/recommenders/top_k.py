"""Full ranking: the best K items of the whole catalogue for every user."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.arrow import Ints, Singles
from models.recommenders.recommender import Recommender

Scores = Callable[[Tensor], Tensor]
"""Scores of all items for a block of users: float32 (n, n_items) of int64 (n,)."""
Ranked = tuple[Ints, Singles]
_SCORES_AT_ONCE = 1 << 22
"""16 MB, which the allocator reuses; more is mapped anew, page by page, for each block of users."""


class Seen:
    """Items that are not recommended to a user again, by internal ids, in compressed rows.

    `barred` are items that are recommended to nobody, int64 (n,); padding always is.
    """

    def __init__(self, users: Ints, items: Ints, n_users: int, barred: Ints | None = None) -> None:
        self.barred = torch.from_numpy(np.zeros(1, np.int64) if barred is None else barred)
        order = np.argsort(users, kind="stable")
        counts = np.bincount(users, minlength=n_users)
        self._items = torch.from_numpy(items[order].astype(np.int32))
        self._counts = torch.from_numpy(counts)
        self._starts = torch.from_numpy(np.concatenate(([0], np.cumsum(counts)[:-1])))

    def cells(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of every seen item in a score block of `users`: int64, equal lengths."""
        users = users.cpu()
        counts = self._counts[users]
        rows = torch.repeat_interleave(torch.arange(len(users), device="cpu"), counts)
        within = torch.arange(len(rows), device="cpu") - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        return rows, self._items[self._starts[users][rows] + within]


def rank(
    recommender: Recommender,
    users: Ints,
    hidden: Sequence[Seen],
    k: int,
    scores: Scores | None = None,
) -> list[Ranked]:
    """Rank all items for `users`, int64 (n,) internal ids; seen items and padding are excluded.

    Users are scored once for all rankings: the first lacks what `hidden[0]` has, and each further
    one also what the next has. `scores` stands for the recommender's own.

    Returns:
        For each of `hidden`, items int64 (n, k) and scores float32 (n, k), best first. Where fewer
        than k items are left, the rest has score -inf. The recommender is left in evaluation mode.
    """
    recommender.module.eval()
    scored = scores or recommender.scores
    shape, done = (len(users), k), 0
    # Filled in place: results that live between two blocks would keep malloc from reusing them.
    found = [(np.empty(shape, np.int64), np.empty(shape, np.float32)) for _ in hidden]
    for block in torch.from_numpy(users).split(max(_SCORES_AT_ONCE // recommender.n_items, 1)):
        # A copy: some models return a view of what they keep.
        scores_of_block = scored(block.to(recommender.device)).float().clone()
        rows = slice(done, done + len(block))
        for seen, (items, values) in zip(hidden, found, strict=True):
            best = _best(scores_of_block, block, seen, k)
            items[rows], values[rows] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        done += len(block)
    return found


def _best(scores: Tensor, users: Tensor, seen: Seen, k: int) -> torch.return_types.topk:
    """Rank a block, float32 (n, n_items), once what is seen has no chance."""
    scores.index_fill_(1, seen.barred.to(scores.device), -torch.inf)
    rows, columns = seen.cells(users)
    cells = (rows * scores.shape[1] + columns).to(scores.device)
    scores.view(-1).index_fill_(0, cells, -torch.inf)
    return torch.topk(scores, k, dim=1)
