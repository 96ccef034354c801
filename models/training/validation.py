"""Scoring a recommender on held-out interactions while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from models.config import Metric
from models.evaluation.click_metrics import auc, log_losses, require_both
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.recommenders.recommender import Recommender
from models.recommenders.top_k import Seen, rank

_PAIRS_AT_ONCE = 1 << 16
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
    def from_pairs(
        cls, recommender: Recommender, pairs: Pairs, candidates: Literal["all", "new"] = "all"
    ) -> Self:
        """Prepare held-out pairs of raw ids for `recommender`; see `evaluation.candidates`."""
        barred = np.append(0, np.unique(recommender.train_items)) if candidates == "new" else None
        users, items = recommender.user_ids(pairs[0]), recommender.item_ids(pairs[1])
        trained = np.isin(users, recommender.train_users)
        users, items = users[trained], items[trained]
        both = (
            np.concatenate((recommender.train_users, users)),
            np.concatenate((recommender.train_items, items)),
        )
        return cls(
            seen=Seen(
                recommender.train_users, recommender.train_items, recommender.n_users, barred
            ),
            seen_or_held=Seen(*both, recommender.n_users, barred),
            held=HeldOut(users, items, recommender.n_items),
            newest_last=(users, items),
        )

    def score(self, recommender: Recommender, metric: Metric, k: int) -> float:
        """Mean over users of `metric`@`k`: full ranking, training items excluded."""
        ranked, _ = rank(recommender, self.held.users, self.seen, k)
        values = ranking_metrics(self.held.hits(ranked), self.held.n_relevant, [metric], [k])
        return float(values[metric, k].mean())


@dataclass(frozen=True)
class Clicks:
    """Held-out pairs by internal ids, and whether the user liked the item.

    Attributes:
        users, items: int64 (n,).
        labels: bool (n,).
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.bool_]

    @classmethod
    def from_pairs(
        cls,
        recommender: Recommender,
        users: Sequence[str],
        items: Sequence[str],
        labels: NDArray[np.bool_],
    ) -> Self:
        """Look up pairs of raw ids; those of users without training interactions are left out."""
        ids = recommender.user_ids(users)
        trained = np.isin(ids, recommender.train_users)
        return cls(ids[trained], recommender.item_ids(items)[trained], labels[trained])

    def probabilities(self, recommender: Recommender) -> NDArray[np.float32]:
        """Predict the probability of a like: float32 (n,)."""
        if not len(self.users):
            return np.empty(0, np.float32)
        recommender.module.eval()
        users, items = torch.from_numpy(self.users), torch.from_numpy(self.items)
        parts = [
            recommender.predict(some.to(recommender.device), others.to(recommender.device)).cpu()
            for some, others in zip(
                users.split(_PAIRS_AT_ONCE), items.split(_PAIRS_AT_ONCE), strict=True
            )
        ]
        return torch.cat(parts).numpy()

    def score(self, recommender: Recommender, metric: Metric) -> float:
        """AUC, or LogLoss with its sign turned, so that more is better."""
        probabilities = self.probabilities(recommender)
        require_both(self.labels, "valid")
        if metric == "auc":
            return auc(self.labels, probabilities)
        return -float(log_losses(self.labels, probabilities).mean())
