"""Scoring a recommender on held-out interactions while it trains."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch

from models.arrow import Bools, Floats, Ints, Singles, Strings
from models.config import Metric
from models.evaluation.click_metrics import auc, log_losses, require_both
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.recommenders.recommender import Recommender
from models.recommenders.top_k import Seen, rank

_PAIRS_AT_ONCE = 1 << 16
Pairs = tuple[Strings, Strings]


@dataclass(frozen=True)
class Holdout:
    """Held-out interactions of users that have training interactions, by internal ids.

    Attributes:
        seen: training items, never ranked.
        also_held: held-out items, which a later split's ranking excludes as well.
        held: the held-out items of the users that are validated on: all, or a sample.
        share: of the users with held-out items, how many that are.
        newest_last: internal user and item ids of the held-out pairs, in the order given.
    """

    seen: Seen
    also_held: Seen
    held: HeldOut
    share: float
    newest_last: tuple[Ints, Ints]

    @classmethod
    def from_pairs(
        cls,
        recommender: Recommender,
        pairs: Pairs,
        candidates: Literal["all", "new"] = "all",
        most_users: int | None = None,
    ) -> Self:
        """Prepare held-out pairs of raw ids for `recommender`; see `evaluation.candidates`.

        With more than `most_users`, so many are drawn to be validated on, in every arm the same.
        """
        barred = np.append(0, np.unique(recommender.train_items)) if candidates == "new" else None
        users, items = recommender.user_ids(pairs[0]), recommender.item_ids(pairs[1])
        trained = np.isin(users, recommender.train_users)
        users, items = users[trained], items[trained]
        known, n = (recommender.train_users, recommender.train_items), recommender.n_users
        judged = np.unique(users)
        drawn = np.random.default_rng(0).permutation(judged)[:most_users]
        asked = np.isin(users, drawn)
        return cls(
            seen=Seen(*known, n, barred),
            also_held=Seen(users, items, n),
            held=HeldOut(users[asked], items[asked], recommender.n_items),
            share=len(drawn) / max(len(judged), 1),
            newest_last=(users, items),
        )

    def score(self, recommender: Recommender, metric: Metric, k: int) -> float:
        """Mean over users of `metric`@`k`: full ranking, training items excluded."""
        return float(self._values(recommender, metric, k).mean())

    def standard_error(self, recommender: Recommender, metric: Metric, k: int) -> float:
        """What the score may differ from that of all users, one standard deviation."""
        values = self._values(recommender, metric, k)
        return float(values.std() * ((1 - self.share) / len(values)) ** 0.5)

    def _values(self, recommender: Recommender, metric: Metric, k: int) -> Floats:
        [(ranked, _)] = rank(recommender, self.held.users, [self.seen], k)
        hits, n_relevant = self.held.hits(ranked), self.held.n_relevant
        return ranking_metrics(hits, n_relevant, [metric], [k])[metric, k]


@dataclass(frozen=True)
class Clicks:
    """Held-out pairs by internal ids, and whether the user liked the item.

    Attributes:
        users, items: int64 (n,).
        labels: bool (n,).
    """

    users: Ints
    items: Ints
    labels: Bools

    @classmethod
    def from_pairs(
        cls, recommender: Recommender, users: Strings, items: Strings, labels: Bools
    ) -> Self:
        """Look up pairs of raw ids; those of users without training interactions are left out."""
        ids = recommender.user_ids(users)
        trained = np.isin(ids, recommender.train_users)
        return cls(ids[trained], recommender.item_ids(items)[trained], labels[trained])

    def probabilities(self, recommender: Recommender) -> Singles:
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
