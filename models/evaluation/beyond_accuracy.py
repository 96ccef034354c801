"""What lists are like, apart from being right; a new one is a line in `of_lists` and `BEYOND`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from models.arrow import Floats, Ints, distinct, incidence, positions, words
from models.evaluation.slices import holders_of
from models.evaluation.user_scores import codes_in_blocks
from models.schemas import GENRES, ITEM, USER

BEYOND = ("coverage", "novelty", "gini", "popularity", "diversity", "calibration")

_SMOOTHING = 0.01  # of a list's shares of genres in the calibration (Steck 2018, equation 6)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What the items are and who has them.

    Attributes:
        items: string (n_items,).
        holders: int64 (n_items,), training interactions of each.
        surprises: float64 (n_items,), -log2 of the share of training users who have the item
            (Zhou et al., PNAS 107, 2010); an item that nobody has counts as if one had.
        genres: sparse (n_items, n_genres), an item's genres with equal shares that sum to 1.
        users: string (n_users,), who has training interactions.
        tastes: sparse (n_users, n_genres), the sums of their items' genres.
    """

    items: pa.Array
    holders: Ints
    surprises: Floats
    genres: sparse.csr_matrix
    users: pa.Array
    tastes: sparse.csr_matrix

    @classmethod
    def of(cls, items: pa.Table, train: pa.Table) -> Self:
        """Count the training interactions of the items in `items`, schema `ITEMS`."""
        ids = items[ITEM].combine_chunks()
        holders = holders_of(ids, train)
        users, genres = distinct(train[USER]), _shares(words(items, GENRES)[0])
        surprises = -np.log2(np.maximum(holders, 1) / len(users))
        return cls(ids, holders, surprises, genres, users, incidence(train, users, ids) @ genres)

    @cached_property
    def _unit_genres(self) -> sparse.csr_matrix:
        """The items' genres as vectors of length 1; none stay empty."""
        lengths = np.sqrt(np.asarray(self.genres.multiply(self.genres).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags_array(1 / np.maximum(lengths, 1e-300)) @ self.genres)

    def of_lists(
        self, rankings: pa.Table, split: str, ks: Sequence[int]
    ) -> dict[tuple[str, int], float]:
        """Describe the lists of `split` at every cut-off; `rankings` has the schema `RANKINGS`.

        Means are over the users with a list, and in diversity and calibration over those that have
        genres there. Without genres these two are missing.

        Returns:
            By name and cut-off,
            coverage: share of the catalogue that is recommended to anyone.
            novelty: mean surprise of the recommended, in bits.
            gini: of how often items are recommended; 0 all alike, 1 one alone.
            popularity: mean training interactions of the recommended.
            diversity: mean of 1 minus the cosine of two items' genres (intra-list distance).
            calibration: mean Kullback-Leibler divergence, in nats, of the list's genres from those
                of the training history; 0 is calibrated.
        """
        ranked = rankings.filter(pc.equal(rankings["split"], split))
        rows = positions(ranked[USER], self.users)
        sums = {k: _Sums(np.zeros(len(self.items))) for k in ks}
        every = pa.array(np.arange(len(rows)))
        for first, codes in codes_in_blocks(ranked["items"], every, self.items, max(ks)):
            for k in ks:
                self._add(sums[k], codes[:, :k], rows[first : first + len(codes)])
        return {(name, k): v for k in ks for name, v in self._means(sums[k]).items()}

    def _add(self, sums: "_Sums", codes: Ints, rows: Ints) -> None:
        """Add lists as `codes_in_blocks` gives them; `rows`: whose, as places in `users`, or -1."""
        owners, ranks = np.nonzero(codes >= 0)
        marks = np.ones(len(owners)), (owners, codes[owners, ranks])
        lists = sparse.csr_matrix(marks, shape=(len(codes), len(self.items)))
        served = lists[np.asarray(lists.sum(axis=1)).ravel() > 0]
        length = np.asarray(served.sum(axis=1)).ravel()
        sums.shown += np.asarray(lists.sum(axis=0)).ravel()
        sums.served += len(length)
        sums.novelty += float((served @ self.surprises / length).sum())
        sums.popularity += float((served @ self.holders / length).sum())
        if self.genres.nnz:
            sums.diversity += _diversity(served, self._unit_genres)
            wanted, given = self.tastes[rows[rows >= 0]], (lists @ self.genres)[rows >= 0]
            sums.calibration += _calibration(wanted, given)

    def _means(self, sums: "_Sums") -> dict[str, float]:
        shown, n, lists = np.sort(sums.shown), len(self.items), max(sums.served, 1)
        found = {
            "coverage": float((shown > 0).mean()),
            "novelty": sums.novelty / lists,
            "gini": float((2 * np.arange(1, n + 1) - n - 1) @ shown / (n * shown.sum())),
            "popularity": sums.popularity / lists,
        }
        if self.genres.nnz:
            pairs = {"diversity": sums.diversity, "calibration": sums.calibration}
            found |= {name: float(total / max(of, 1)) for name, (total, of) in pairs.items()}
        return found


@dataclass
class _Sums:
    """Over lists, of which a block is in memory at one time; a pair is a sum and of how many."""

    shown: Floats
    """How often each item is recommended."""
    served: int = 0
    novelty: float = 0.0
    popularity: float = 0.0
    diversity: Floats = field(default_factory=lambda: np.zeros(2))
    calibration: Floats = field(default_factory=lambda: np.zeros(2))


def _shares(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that sum to 1; empty ones stay empty."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.diags_array(1 / np.maximum(sums, 1e-300)) @ matrix


def _diversity(lists: sparse.csr_matrix, unit: sparse.csr_matrix) -> Floats:
    """The sum over lists, and of how many: float64 (2,).

    With items' unit vectors v, the pairs' cosines sum to (|Σv|² − n) / 2: no pair is visited.
    """
    n = lists @ (np.diff(unit.indptr) > 0).astype(np.float64)
    total = lists @ unit
    squares = np.asarray(total.multiply(total).sum(axis=1)).ravel()
    several = n > 1
    cosines = (squares[several] - n[several]) / (n[several] * (n[several] - 1))
    return np.array([(1 - cosines).sum(), several.sum()])


def _calibration(wanted: sparse.csr_matrix, given: sparse.csr_matrix) -> Floats:
    """Sum of KL(p ‖ (1−α)q + αp) over the rows that have both (Steck 2018), and their number."""
    both = (np.diff(wanted.indptr) > 0) & (np.diff(given.indptr) > 0)
    p, q = (_shares(sparse.csr_matrix(each)[both]) for each in (wanted, given))
    cells = p.tocoo()  # where p is 0, a cell adds nothing
    there = np.asarray(q[cells.row, cells.col]).ravel()
    mixed = (1 - _SMOOTHING) * there + _SMOOTHING * cells.data
    return np.array([(cells.data * np.log(cells.data / mixed)).sum(), both.sum()])
