import math

import numpy as np
import pytest

from models.comparison import Protocol, compare, obstacle


def crossed(generator, n_seeds, n_users, shift=0.0, sd_seeds=0.05):
    """Differences with an effect of the seed, one of the user and noise."""
    return (
        shift
        + generator.normal(0, sd_seeds, (n_seeds, 1))
        + generator.normal(0, 0.3, (1, n_users))
        + generator.normal(0, 0.5, (n_seeds, n_users))
    )


def test_two_seeds_three_users_by_hand():
    differences = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 4.0]])
    baseline = np.array([[4.0, 5.0, 6.0], [6.0, 7.0, 8.0]])
    result = compare(baseline + differences, baseline)

    # Seed means 3, 3: MS_a = 0. User means 2, 2, 5: MS_b = 2 * 3 = 6.
    # Residuals -1 0 1 / 1 0 -1: MS_e = 4 / 2 = 2, so 0 + 6 - 2 = 4 falls to the floor MS_b = 6.
    # Variance 6 / 6 = 1; df = 36 / (0 + 36/2 + 4/2) = 1.8.
    assert result.difference == pytest.approx(3.0)
    assert result.baseline_mean == pytest.approx(6.0)
    assert result.baseline_sd == pytest.approx(math.sqrt(2))
    assert result.arm_mean == pytest.approx(9.0)
    assert result.arm_sd == pytest.approx(math.sqrt(2))
    assert result.gain_percent == pytest.approx(50.0)
    t = 4.79488  # the density with 1.8 degrees of freedom integrates to 0.475 from 0 to here
    assert result.ci_low == pytest.approx(3 - t, abs=1e-3)
    assert result.ci_high == pytest.approx(3 + t, abs=1e-3)
    assert result.verdict == "no detectable difference"
    assert (result.seeds, result.users) == (2, 3)


def test_above_the_floor_seeds_and_users_add_up():
    # Seed means 1, 3: MS_a = 2 * 2 = 4. User means 1, 3: MS_b = 4. Residuals 0: MS_e = 0.
    # Variance 8 / 4 = 2; df = 64 / (16 + 16) = 2; t(0.975, 2) = 4.3027.
    arm = np.array([[0.0, 2.0], [2.0, 4.0]])
    result = compare(arm, np.zeros((2, 2)))
    assert result.difference == pytest.approx(2.0)
    assert result.ci_high - result.ci_low == pytest.approx(2 * 4.30265 * math.sqrt(2), rel=1e-5)
    assert result.gain_percent is None  # the baseline's mean is 0


def test_one_seed_is_a_paired_t_test_over_users():
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(5)
    baseline, arm = generator.random((1, 40)), generator.random((1, 40)) + 0.1
    expected = ttest_rel(arm[0], baseline[0])
    result = compare(arm, baseline)
    assert result.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high))
    assert result.seeds == 1
    assert result.baseline_sd is None
    assert result.arm_sd is None


def test_identical_arms():
    values = np.random.default_rng(1).random((2, 50))
    result = compare(values, values.copy())
    assert (result.difference, result.ci_low, result.ci_high, result.p_value) == (0, 0, 0, 1)
    assert result.gain_percent == 0
    assert result.verdict == "no detectable difference"


def test_a_constant_shift_is_certain():
    values = np.random.default_rng(1).random((3, 50))
    result = compare(values + 0.1, values)
    assert (result.ci_low, result.ci_high) == pytest.approx((0.1, 0.1))
    assert result.p_value == pytest.approx(0, abs=1e-9)
    assert result.verdict == "better"


@pytest.mark.parametrize("n_seeds", [1, 2, 4])
def test_swapping_the_arms_mirrors_the_result(n_seeds):
    generator = np.random.default_rng(n_seeds)
    baseline = generator.random((n_seeds, 200))
    arm = baseline + crossed(generator, n_seeds, 200, shift=0.3, sd_seeds=0.0)
    forward, backward = compare(arm, baseline), compare(baseline, arm)
    assert backward.difference == pytest.approx(-forward.difference)
    assert backward.ci_low == pytest.approx(-forward.ci_high)
    assert backward.ci_high == pytest.approx(-forward.ci_low)
    assert backward.p_value == pytest.approx(forward.p_value)
    assert (forward.verdict, backward.verdict) == ("better", "worse")


@pytest.mark.parametrize(("n_seeds", "sd_seeds"), [(1, 0.0), (3, 0.0), (3, 0.05), (5, 0.2)])
def test_interval_covers_a_true_difference_of_zero(n_seeds, sd_seeds):
    generator = np.random.default_rng(17)
    baseline = np.full((n_seeds, 100), 0.4)
    covered = 0
    for _ in range(300):
        differences = crossed(generator, n_seeds, 100, sd_seeds=sd_seeds)
        result = compare(baseline + differences, baseline)
        covered += result.ci_low <= 0 <= result.ci_high
        assert (result.p_value >= 0.05) == (result.ci_low <= 0 <= result.ci_high)
    assert 0.90 <= covered / 300 <= 0.99


def test_ignoring_the_seeds_would_not_cover():
    """The reason for the crossed model: pooled users with a seed effect look too certain."""
    generator = np.random.default_rng(17)
    covered = 0
    for _ in range(300):
        pooled = crossed(generator, 5, 100, sd_seeds=0.2).reshape(1, -1)
        result = compare(pooled + 1, np.ones_like(pooled))
        covered += result.ci_low <= 0 <= result.ci_high
    assert covered / 300 < 0.6


def protocol(seeds=(1, 2), users=("a", "b"), budgets=(60, 60)):
    return Protocol(seeds, np.array(users), budgets)


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (protocol(), None),
        (protocol(seeds=(1,), budgets=(60,)), "seeds differ (baseline 1, 2; arm 1)"),
        (protocol(budgets=(60, 90)), "epoch budgets differ (baseline 60; arm 60, 90)"),
        (protocol(users=("a", "c")), "users differ (2 scored in one arm only)"),
    ],
)
def test_what_must_be_equal(arm, reason):
    assert obstacle(arm, protocol()) == reason


def test_a_single_user_is_not_enough():
    assert obstacle(protocol(users=("a",)), protocol(users=("a",))) == (
        "fewer than 2 users were scored"
    )


def test_arms_that_cannot_be_compared_keep_their_means_only():
    result = compare(np.array([[0.2, 0.4]]), np.full((2, 3), 0.1), "seeds differ")
    assert result.arm_mean == pytest.approx(0.3)
    assert result.baseline_mean == pytest.approx(0.1)
    assert result.verdict == "not comparable: seeds differ"
    assert result.difference is result.ci_low is result.p_value is result.gain_percent is None
