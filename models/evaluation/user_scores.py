"""From rankings and held-out interactions to values per user."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.arrow import Bools, Ints, positions
from models.config import Evaluation, Metric, PerUser
from models.errors import BadInput
from models.evaluation.click_metrics import per_user, require_both
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.schemas import ITEM, USER

_LISTS_AT_ONCE = 1 << 16

Column = tuple[str, int | None]
"""A metric and its cut-off."""


@dataclass(frozen=True)
class OfHits(Mapping[Column, PerUser]):
    """Metrics of rankings, computed when asked for: hits take a seventh of the memory of values.

    Attributes:
        hits: bool (n_users, K), see `HeldOut.hits`.
        n_relevant: int64 (n_users,).
        columns: metrics and their cut-offs.
    """

    hits: Bools
    n_relevant: Ints
    columns: tuple[tuple[Metric, int], ...]

    def __getitem__(self, column: Column) -> PerUser:
        """Compute one metric for every user."""
        for metric, k in self.columns:
            if (metric, k) == column:
                return ranking_metrics(self.hits, self.n_relevant, [metric], [k])[metric, k]
        raise KeyError(column)

    def __iter__(self) -> Iterator[Column]:
        """Iterate over metrics and cut-offs."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Count the metrics and cut-offs."""
        return len(self.columns)


@dataclass(frozen=True)
class UserValues:
    """A run's values on one split.

    Attributes:
        users: str (n_users,), ascending: users with both a ranking and held-out items.
        values: per (metric, k) float64 (n_users,), in the order of `users`.
    """

    users: NDArray[np.str_]
    values: Mapping[Column, PerUser] = field(repr=False)

    def where(self, chosen: Bools | Ints) -> Self:
        """The values of some users, by mask or by position."""
        if isinstance(self.values, OfHits):
            of = self.values
            rows = OfHits(of.hits[chosen], of.n_relevant[chosen], of.columns)
            return type(self)(self.users[chosen], rows)
        values = {column: values[chosen] for column, values in self.values.items()}
        return type(self)(self.users[chosen], values)


def score(rankings: pa.Table, held: pa.Table, split: str, config: Evaluation) -> UserValues:
    """Score every user of a split, for every metric at every cut-off.

    `rankings` has the schema `RANKINGS` (scores are not needed), `held` `INTERACTIONS`.

    Raises:
        BadInput: if no user has both a ranking and held-out items.
    """
    rankings = rankings.filter(pc.equal(rankings["split"], split))
    order = pc.sort_indices(rankings[USER])
    users = rankings[USER].combine_chunks().take(order)
    held = held.filter(pc.is_in(held[USER], users))
    if held.num_rows == 0:
        raise BadInput(
            f"no user has both {split} interactions and a ranking; change split.strategy or "
            f"split.ratios so that users have training and {split} interactions"
        )
    # A user's code is its row in the rankings; items that nobody holds out need no code.
    items = pc.unique(held[ITEM])
    held_out = HeldOut(positions(held[USER], users), positions(held[ITEM], items), len(items))
    rows, k = order.take(pa.array(held_out.users)), max(config.k)
    hits = np.empty((len(rows), k), dtype=np.bool_)
    for first, codes in codes_in_blocks(rankings["items"], rows, items, k):
        hits[first : first + len(codes)] = held_out.hits(codes, first)
    columns = tuple((metric, k) for metric in config.metrics for k in config.k)
    names = users.take(pa.array(held_out.users)).to_numpy(zero_copy_only=False)
    of_hits = OfHits(hits, held_out.n_relevant, columns)
    return UserValues(np.asarray(names, dtype=np.str_), of_hits)


def score_clicks(predictions: pa.Table, split: str, config: Evaluation) -> UserValues:
    """Compute AUC and LogLoss per user, see `click_metrics.per_user`, from `PREDICTIONS`.

    Raises:
        BadInput: if there are likes only, or none.
    """
    labels = np.asarray(predictions["liked"], dtype=np.bool_)
    require_both(labels, split)
    users = np.asarray(predictions[USER].to_numpy(), dtype=np.str_)
    names, codes = np.unique(users, return_inverse=True)
    scores = np.asarray(predictions["probability"], dtype=np.float32)
    columns = config.columns()
    return UserValues(
        names, {(metric, k): per_user(metric, codes, labels, scores) for metric, k in columns}
    )


def codes_in_blocks(
    lists: pa.ChunkedArray, rows: pa.Array, items: pa.Array, k: int
) -> Iterator[tuple[int, Ints]]:
    """Yield the lists in `rows` as codes of `items`, a block at a time, with its first place there.

    Codes are int64 (n, k), cut at k or filled up with -1.
    """
    for first in range(0, len(rows), _LISTS_AT_ONCE):
        block = lists.take(rows[first : first + _LISTS_AT_ONCE]).combine_chunks()
        yield first, _list_codes(block, items, k)


def _list_codes(lists: pa.ListArray, items: pa.Array, k: int) -> Ints:
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths)
    ranks = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
    shown = ranks < k
    matrix = np.full((len(lists), k), -1, dtype=np.int64)
    matrix[rows[shown], ranks[shown]] = positions(lists.flatten(), items)[shown]
    return matrix
