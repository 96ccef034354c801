"""Synthetic logs with something to learn, of any size.

Items have one of 200 kinds (with few items of fewer), users like three of them, one interaction in
seven is of any kind, and popularity within a kind falls as a power law. A fifth of the interactions
of 5,000 users is held out.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.movielens import MovieLens
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.schemas import INTERACTIONS

K, JUDGED, KINDS = 10, 5_000, 200


@dataclass(frozen=True)
class World:
    """Training and held-out pairs by number, int64; every user and item below the counts."""

    n_users: int
    n_items: int
    train: tuple[NDArray[np.int64], NDArray[np.int64]]
    held: tuple[NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def draw(cls, n_users: int, n_items: int, each: int) -> "World":
        """Draw pairs, repeated ones once."""
        rng = np.random.default_rng(1)
        most = min(KINDS, n_items // 20)
        borders = np.linspace(0, n_items, most + 1).astype(np.int64)
        liked = rng.integers(0, most, (n_users, 3))
        users = np.repeat(np.arange(n_users), each)
        kinds = liked[users, rng.choice(3, len(users), p=[0.5, 0.3, 0.2])]
        any_kind = rng.integers(0, most, len(users))
        kinds = np.where(rng.random(len(users)) < 1 / 7, any_kind, kinds)
        places = rng.random(len(users)) ** 2 * (borders[kinds + 1] - borders[kinds])
        codes = np.unique(users * n_items + borders[kinds] + places.astype(np.int64))
        users, items = np.divmod(codes, n_items)
        judged = rng.permutation(n_users)[:JUDGED]
        held = np.isin(users, judged) & (rng.random(len(users)) < 0.2)
        return cls(n_users, n_items, (users[~held], items[~held]), (users[held], items[held]))

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """Float32 (n_users, n_items), 1 for a training pair."""
        ones = np.ones(len(self.train[0]), np.float32)
        return sparse.csr_matrix((ones, self.train), (self.n_users, self.n_items))

    @cached_property
    def _held(self) -> HeldOut:
        return HeldOut(*self.held, self.n_items)

    def ndcg(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> float:
        """NDCG@10 of the judged users, by vectors float32 (n, width) of all users and items."""
        held, ranked = self._held, []
        for block in np.array_split(held.users, max(1, len(held.users) // 500)):
            scores = users[block] @ items.T
            rows, columns = self.matrix[block].nonzero()
            scores[rows, columns] = -np.inf
            ranked.append(torch.topk(torch.from_numpy(scores), K).indices.numpy())
        hits = held.hits(np.concatenate(ranked))
        return float(ranking_metrics(hits, held.n_relevant, ["ndcg"], [K])["ndcg", K].mean())

    @classmethod
    def parse(cls, size: str) -> "World":
        """Draw the size that `50000x10000x20` names: users, items, draws of each user."""
        return cls.draw(*map(int, size.split("x")))

    def parts(self) -> MovieLens:
        """The same as tables (schema `INTERACTIONS`); the held-out pairs are valid, test is one."""
        train, valid = (_table(*pairs) for pairs in (self.train, self.held))
        return MovieLens(train, valid, valid.slice(0, 1))


def _table(users: NDArray[np.int64], items: NDArray[np.int64]) -> pa.Table:
    names = [np.char.add(letter, part.astype(str)) for letter, part in (("u", users), ("i", items))]
    columns = [*names, np.full(len(users), 5.0, np.float32), np.arange(len(users))]
    return pa.table(columns, INTERACTIONS.names).cast(INTERACTIONS)
