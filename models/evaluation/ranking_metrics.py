"""Full-ranking metrics for binary relevance, one value per user."""

from collections.abc import Sequence

import numpy as np

from models.arrow import Bools, Ints
from models.config import RANKING_METRICS, Metric, PerUser


class HeldOut:
    """The held-out items of every user that has any.

    Attributes:
        users: int64 (n_users,), the users with at least one held-out item, ascending.
        n_relevant: int64 (n_users,), how many distinct items each of them has.
    """

    def __init__(self, users: Ints, items: Ints, n_items: int) -> None:
        """Index held-out pairs: int64 (n_pairs,) user codes, and item codes below `n_items`."""
        self._n_items = n_items
        # np.unique hashes since numpy 2.3, ten times slower than this for a million pairs.
        pairs = np.sort(users * n_items + items)
        self._pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        self.users, self.n_relevant = np.unique(self._pairs // n_items, return_counts=True)

    def hits(self, ranked: Ints, first: int = 0) -> Bools:
        """Tell which ranked items are relevant.

        Args:
            ranked: int64 (n, K), item codes in [0, n_items), best first, one row per user in the
                order of `users`; -1 where a ranking is shorter.
            first: whose ranking the first row is, as a place in `users`.

        Returns:
            bool (n, K).
        """
        wanted = self.users[first : first + len(ranked), None] * self._n_items + ranked
        # A row's keys are near each other, so sorted pairs keep the binary search in cache.
        position = np.searchsorted(self._pairs, wanted)
        found = self._pairs.take(position, mode="clip") == wanted
        return np.asarray(found & (ranked >= 0))


def ranking_metrics(
    hits: Bools, n_relevant: Ints, metrics: Sequence[Metric], ks: Sequence[int]
) -> dict[tuple[str, int], PerUser]:
    """Compute every metric at every K for every user.

    Args:
        hits: bool (n_users, K_max), whether the item at rank r + 1 is relevant.
        n_relevant: int64 (n_users,), relevant items of each user, at least 1.
        metrics: names of rows of `models.config.metrics.RANKING_METRICS`.
        ks: cut-offs, none above K_max.

    Returns:
        Per (metric, k) the users' values, float64 (n_users,), in the order of `metrics`, `ks`.

    Raises:
        ValueError: if a cut-off is above K_max or a user has no relevant item.
    """
    if max(ks) > hits.shape[1]:
        raise ValueError(f"metrics at {max(ks)} need rankings of that length, not {hits.shape[1]}")
    if hits.shape[0] and n_relevant.min() < 1:
        raise ValueError("users without relevant items must be left out")
    return {
        (metric, k): RANKING_METRICS[metric].score(hits[:, :k], n_relevant)
        for metric in metrics
        for k in ks
    }
