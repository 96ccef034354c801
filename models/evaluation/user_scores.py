"""From rankings and held-out interactions to values per user."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.arrow import Bools, Ints, positions
from models.config import Evaluation, PerUser
from models.errors import BadInput
from models.evaluation.click_metrics import per_user, require_both
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.schemas import ITEM, USER


@dataclass(frozen=True)
class UserValues:
    """A run's values on one split.

    Attributes:
        users: str (n_users,), ascending: users with both a ranking and held-out items.
        values: per (metric, k) float64 (n_users,), in the order of `users`.
    """

    users: NDArray[np.str_]
    values: dict[tuple[str, int | None], PerUser]

    def where(self, chosen: Bools | Ints) -> Self:
        """The values of some users, by mask or by position."""
        values = {column: values[chosen] for column, values in self.values.items()}
        return type(self)(self.users[chosen], values)


def score(rankings: pa.Table, held: pa.Table, split: str, config: Evaluation) -> UserValues:
    """Compute every metric at every cut-off for every user of a split.

    `rankings` has the schema `RANKINGS` (scores are not needed), `held` `INTERACTIONS`.

    Raises:
        BadInput: if no user has both a ranking and held-out items.
    """
    rankings = rankings.filter(pc.equal(rankings["split"], split)).sort_by(USER)
    users, lists = (rankings[column].combine_chunks() for column in (USER, "items"))
    held = held.filter(pc.is_in(held[USER], users))
    if held.num_rows == 0:
        raise BadInput(
            f"no user has both {split} interactions and a ranking; change split.strategy or "
            f"split.ratios so that users have training and {split} interactions"
        )
    # A user's code is its row in the rankings; items that nobody holds out need no code.
    items = pc.unique(held[ITEM])
    held_out = HeldOut(positions(held[USER], users), positions(held[ITEM], items), len(items))
    hits = held_out.hits(list_codes(lists, items, max(config.k))[held_out.users])
    values = ranking_metrics(hits, held_out.n_relevant, config.metrics, config.k)
    names = users.take(held_out.users).to_numpy(zero_copy_only=False)
    return UserValues(np.asarray(names, dtype=np.str_), dict(values.items()))


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


def list_codes(lists: pa.ListArray, items: pa.Array, k: int) -> Ints:
    """Lists of items as codes: int64 (n_lists, k), cut at k or filled up with -1."""
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths)
    ranks = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
    shown = ranks < k
    matrix = np.full((len(lists), k), -1, dtype=np.int64)
    matrix[rows[shown], ranks[shown]] = positions(lists.flatten(), items)[shown]
    return matrix
