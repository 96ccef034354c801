"""Bootstrap intervals: users drawn again, or users and seeds (Owen 2007, the pigeonhole bootstrap).

A run's mean over drawn users is a product of counts and values, and a contrast is a difference of
such means: one matrix product serves every contrast on every metric, with the same draws for all.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 20
CONFIDENCE = 0.95

_USERS_AT_ONCE = 4096
"""Bounds the memory: counts and values of this many users are held at a time."""

Values = NDArray[np.float64]
Interval = tuple[float, float]


def resampled_means(
    columns: Sequence[Values], seed: int = SEED, resamples: int = RESAMPLES
) -> Values:
    """The means of every column over users drawn with replacement.

    Args:
        columns: float64 (n_users,) each, the same users in the same order.
        seed: of the draws.
        resamples: how often as many users are drawn as there are.

    Returns:
        float64 (resamples, n_columns).
    """
    n_users = len(columns[0])
    sums = np.zeros((resamples, len(columns)))
    for start, counts in _counts(n_users, seed, resamples):
        stop = start + counts.shape[1]
        sums += counts @ np.stack([column[start:stop] for column in columns], axis=1)
    return sums / n_users


def _counts(n_users: int, seed: int, resamples: int) -> Iterator[tuple[int, Values]]:
    """How often each user is drawn, some users at a time: first user, (resamples, n) counts.

    The multinomial draw of all users is first divided among the blocks, then within each.
    """
    generator = np.random.default_rng(seed)
    starts = np.arange(0, n_users, _USERS_AT_ONCE)
    sizes = np.diff(starts, append=n_users)
    totals = generator.multinomial(n_users, sizes / n_users, size=resamples)
    for start, size, total in zip(starts.tolist(), sizes.tolist(), totals.T, strict=True):
        rows = np.repeat(np.arange(resamples) * size, total)
        drawn = np.bincount(
            rows + generator.integers(size, size=len(rows)), minlength=resamples * size
        )
        yield start, drawn.reshape(resamples, size).astype(np.float64)


def intervals(arm: Values, other: Values, seed: int = SEED) -> tuple[Interval, Interval]:
    """95 % percentile intervals of the difference: over users, and over seeds and users.

    Args:
        arm: float64 (resamples, n_seeds), means from `resampled_means`, one column per seed.
        other: likewise, the same seeds in the same order from the same draws.
        seed: of the draws of seeds.
    """
    differences = arm - other
    resamples, n_seeds = differences.shape
    # A stream of its own: seeds must not be drawn in step with users.
    generator = np.random.default_rng([seed, n_seeds])
    shares = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples) / n_seeds
    return _percentiles(differences.mean(axis=1)), _percentiles((differences * shares).sum(axis=1))


def _percentiles(replicates: Values) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)
