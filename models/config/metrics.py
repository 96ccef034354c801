"""The ranking metrics, for binary relevance. Adding one is one function and one row here.

Definitions are RecBole 1.2.1's (recbole/evaluator/metrics.py); its own evaluator loops over
users in Python for three of the six, here all are array expressions.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PerUser = NDArray[np.float64]


class RankingMetric(NamedTuple):
    """One metric.

    Attributes:
        label: in tables and the report.
        score: float64 (n_users,), of hits bool (n_users, k), best first, and the number of
            relevant items int64 (n_users,), each at least 1.
    """

    label: str
    score: Callable[[NDArray[np.bool_], NDArray[np.int64]], PerUser]


def _hit(hits: NDArray[np.bool_], _: NDArray[np.int64]) -> PerUser:
    """1 where any of the k items is relevant, else 0."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def _precision(hits: NDArray[np.bool_], _: NDArray[np.int64]) -> PerUser:
    """Relevant items among the k, divided by k."""
    return np.asarray(hits.sum(axis=1) / hits.shape[1])


def _recall(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> PerUser:
    """Relevant items among the k, divided by all relevant items."""
    return np.asarray(hits.sum(axis=1) / n_relevant)


def _mrr(hits: NDArray[np.bool_], _: NDArray[np.int64]) -> PerUser:
    """Reciprocal rank of the first relevant item; 0 where none is among the k."""
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1.0))


def _average_precision(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> PerUser:
    """Precision at the rank of every relevant item, summed, divided by min(n_relevant, k)."""
    k = hits.shape[1]
    at_rank = hits.cumsum(axis=1, dtype=np.float64) / np.arange(1, k + 1)
    return np.asarray((at_rank * hits).sum(axis=1) / np.minimum(n_relevant, k))


def _ndcg(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> PerUser:
    """DCG with gain 1 and discount log2(rank + 1), over that of min(n_relevant, k) hits on top."""
    k = hits.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = discounts.cumsum()[np.minimum(n_relevant, k) - 1]
    return np.asarray(hits @ discounts / ideal)


RANKING_METRICS: dict[str, RankingMetric] = {
    "ndcg": RankingMetric("NDCG", _ndcg),
    "recall": RankingMetric("Recall", _recall),
    "hit": RankingMetric("Hit rate", _hit),
    "precision": RankingMetric("Precision", _precision),
    "mrr": RankingMetric("MRR", _mrr),
    "map": RankingMetric("MAP", _average_precision),
}

if TYPE_CHECKING:
    RankingMetricName = str
else:
    RankingMetricName = Literal[tuple(RANKING_METRICS)]
