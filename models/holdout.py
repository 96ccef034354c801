"""Scoring a recommender on held-out interactions while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.config import Metric
from models.metrics import HeldOut, ranking_metrics
from models.ranking import Seen, rank
from models.recommender import Recommender

Pairs = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Holdout:
    """Held-out interactions of users that have training interactions, by internal ids.

    Attributes:
        seen: training items, never ranked.
        seen_or_held: training and held-out items, which a later split's ranking excludes.
        held: the held-out items.
        newest_last: internal user and item ids of the held-out pairs, in the order given.
    """

    seen: Seen
    seen_or_held: Seen
    held: HeldOut
    newest_last: tuple[NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, recommender: Recommender, pairs: Pairs) -> Self:
        """Prepare held-out pairs of raw ids for `recommender`."""
        users, items = recommender.user_ids(pairs[0]), recommender.item_ids(pairs[1])
        trained = np.isin(users, recommender.train_users)
        users, items = users[trained], items[trained]
        both = (
            np.concatenate((recommender.train_users, users)),
            np.concatenate((recommender.train_items, items)),
        )
        return cls(
            seen=Seen(recommender.train_users, recommender.train_items, recommender.n_users),
            seen_or_held=Seen(*both, recommender.n_users),
            held=HeldOut(users, items, recommender.n_items),
            newest_last=(users, items),
        )

    def score(self, recommender: Recommender, metric: Metric, k: int) -> float:
        """Mean over users of `metric`@`k`: full ranking, training items excluded."""
        ranked, _ = rank(recommender, self.held.users, self.seen, k)
        values = ranking_metrics(self.held.hits(ranked), self.held.n_relevant, [metric], [k])
        return float(values[metric, k].mean())
