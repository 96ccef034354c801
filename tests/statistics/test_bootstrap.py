import tracemalloc

import numpy as np
import pytest

from models.statistics import bootstrap
from models.statistics.bootstrap import intervals, resampled_means


def test_draws_are_those_of_the_textbook():
    """Mean and variance of the bootstrap distribution of a mean are known exactly."""
    values = np.random.default_rng(0).gamma(1.0, size=200)
    means = resampled_means([values], resamples=20_000)[:, 0]
    assert means.mean() == pytest.approx(values.mean(), abs=3e-3)
    assert means.var() == pytest.approx(values.var() / 200, rel=0.05)


def test_all_columns_share_the_draws():
    values = np.random.default_rng(0).random(50)
    means = resampled_means([values, values + 1, np.ones(50)], resamples=300)
    assert means[:, 1] - means[:, 0] == pytest.approx(np.ones(300))
    assert means[:, 2] == pytest.approx(np.ones(300))  # as many users are drawn as there are
    again = resampled_means([values], resamples=300)
    assert again[:, 0] == pytest.approx(means[:, 0])
    assert not np.allclose(resampled_means([values], seed=1, resamples=300), again)


def test_users_in_blocks_are_drawn_like_users_at_once(monkeypatch):
    values = np.random.default_rng(0).gamma(1.0, size=300)
    monkeypatch.setattr(bootstrap, "_USERS_AT_ONCE", 32)
    means = resampled_means([values, np.ones(300)], resamples=20_000)
    assert means[:, 0].var() == pytest.approx(values.var() / 300, rel=0.05)
    assert means[:, 1] == pytest.approx(np.ones(20_000))


def test_memory_does_not_grow_with_users():
    columns = [np.ones(200_000), np.zeros(200_000)]
    tracemalloc.start()
    try:
        resampled_means(columns, resamples=100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # counts of all users at once would take 160 MB


def test_intervals_by_hand():
    # Seed means of the difference are 1 and 3 whatever users are drawn.
    arm, other = np.tile([2.0, 4.0], (2000, 1)), np.ones((2000, 2))
    of_users, of_both = intervals(arm, other)
    assert of_users == (2.0, 2.0)
    assert of_both == (1.0, 3.0)  # a quarter of the draws is one seed twice
    assert intervals(arm[:, :1], other[:, :1]) == ((1.0, 1.0), (1.0, 1.0))


def test_a_bootstrap_of_users_agrees_with_the_normal_interval():
    values = np.random.default_rng(8).normal(0.1, 1.0, (1, 400))
    means = resampled_means(list(values))
    (low, high), _ = intervals(means, np.zeros_like(means))
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.01)
