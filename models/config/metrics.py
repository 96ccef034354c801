"""The ranking metrics, for binary relevance. Adding one is one function and one row here.

One's own is named by import path: a function of hits and numbers of relevant items, or a
`RankingMetric`.

Definitions are RecBole 1.2.1's (recbole/evaluator/metrics.py); its own evaluator loops over
users in Python for three of the six, here all are array expressions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from models.arrow import Bools, Floats, Ints
from models.config.plugins import Table, checked, numbers

PerUser = Floats


class RankingMetric(NamedTuple):
    """One metric.

    Attributes:
        label: in tables and the report.
        score: float64 (n_users,), of hits bool (n_users, k), best first, and the number of
            relevant items int64 (n_users,), each at least 1.
        low, high: least and largest value of a user.
    """

    label: str
    score: Callable[[Bools, Ints], PerUser]
    low: float = 0.0
    high: float = 1.0


def _hit(hits: Bools, _: Ints) -> PerUser:
    """1 where any of the k items is relevant, else 0."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def _precision(hits: Bools, _: Ints) -> PerUser:
    """Relevant items among the k, divided by k."""
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def _recall(hits: Bools, n_relevant: Ints) -> PerUser:
    """Relevant items among the k, divided by all relevant items."""
    return np.asarray(hits.sum(axis=1) / n_relevant)


def _mrr(hits: Bools, _: Ints) -> PerUser:
    """Reciprocal rank of the first relevant item; 0 where none is among the k."""
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1.0))


def _average_precision(hits: Bools, n_relevant: Ints) -> PerUser:
    """Precision at the rank of every relevant item, summed, divided by min(n_relevant, k)."""
    k = hits.shape[1]
    at_rank = hits.cumsum(axis=1, dtype=np.float64) / np.arange(1, k + 1)
    return np.asarray((at_rank * hits).sum(axis=1) / np.minimum(n_relevant, k))


def _ndcg(hits: Bools, n_relevant: Ints) -> PerUser:
    """DCG with gain 1 and discount log2(rank + 1), over that of min(n_relevant, k) hits on top."""
    k = hits.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = discounts.cumsum()[np.minimum(n_relevant, k) - 1]
    return np.asarray(hits @ discounts / ideal)


def _own(name: str, found: Any) -> RankingMetric:
    """Make a row of one's own metric, tried on random hits."""
    row = found if isinstance(found, RankingMetric) else RankingMetric(name.split(":")[1], found)

    def expected(values: Any, hits: Bools, _: Any) -> str | None:
        wanted = numbers(values, (len(hits),))
        inside = wanted is None and np.all((values >= row.low) & (values <= row.high))
        return None if inside else f"a number per user from {row.low} to {row.high}"

    score = checked(name, "metric(hits, n_relevant)", row.score, expected)
    hits = np.random.default_rng(0).random((8, 5)) < 0.4
    score(hits, hits.sum(axis=1) + 1)
    return row._replace(score=lambda hits, n: np.asarray(score(hits, n), np.float64))


_SHIPPED: dict[str, RankingMetric] = {
    "ndcg": RankingMetric("NDCG", _ndcg),
    "recall": RankingMetric("Recall", _recall),
    "hit": RankingMetric("Hit rate", _hit),
    "precision": RankingMetric("Precision", _precision),
    "mrr": RankingMetric("MRR", _mrr),
    "map": RankingMetric("MAP", _average_precision),
}

RANKING_METRICS = Table(_SHIPPED, _own)
