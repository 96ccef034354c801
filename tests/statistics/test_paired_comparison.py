import math

import numpy as np
import pytest

from models.statistics.paired_comparison import Spread, at_level, compare, over_nights


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
    # Residuals -1 0 1 / 1 0 -1: MS_e = 4 / 2 = 2. Seeds have 0, users (6 - 2) / 6 of the variance,
    # which rises to the floor MS_b / 6 = 1, with 2 degrees of freedom.
    assert result.difference == pytest.approx(3.0)
    assert result.baseline_mean == pytest.approx(6.0)
    assert result.baseline_sd == pytest.approx(math.sqrt(2))
    assert result.arm_mean == pytest.approx(9.0)
    assert result.arm_sd == pytest.approx(math.sqrt(2))
    assert result.gain_percent == pytest.approx(50.0)
    t = 4.302653  # of 2 degrees of freedom, 0.975
    assert result.ci_low == pytest.approx(3 - t, abs=1e-3)
    assert result.ci_high == pytest.approx(3 + t, abs=1e-3)
    assert result.verdict == "exploratory"
    assert (result.seeds, result.users) == (2, 3)
    # Over users, 1 2 6 has variance 7 and 3 2 4 has 1: d_z = 3 / sqrt(4).
    assert result.effect_size == pytest.approx(1.5)
    # t = 3 with 2 degrees of freedom: p = 1 - 3 / sqrt(2 + 9).
    assert result.p_value == pytest.approx(1 - 3 / math.sqrt(11))
    assert result.p_adjusted is None  # a claim has one


def test_above_the_floor_seeds_and_users_add_up():
    # Seed means 1, 3: MS_a = 2 * 2 = 4. User means 1, 3: MS_b = 4. Residuals 0: MS_e = 0.
    # Each has 4 / 4 = 1 of the variance and 1 degree of freedom: t(0.975, 1) = 12.7062.
    arm = np.array([[0.0, 2.0], [2.0, 4.0]])
    result = compare(arm, np.zeros((2, 2)))
    assert result.difference == pytest.approx(2.0)
    assert result.ci_high - result.ci_low == pytest.approx(2 * 12.70620 * math.sqrt(2), rel=1e-5)
    assert result.gain_percent is None  # the baseline's mean is 0


def test_seeds_and_users_keep_their_own_degrees_of_freedom():
    # Seed means 1 2 3, user means 1.5 2.5: MS_a = 2 * 1 = 2, MS_b = 3 * .5 = 1.5, MS_e = 0.
    # Seeds: 2 / 6 with t(2) = 4.302653; users: 1.5 / 6 with t(1) = 12.706205.
    arm = np.array([[0.5, 1.5], [1.5, 2.5], [2.5, 3.5]])
    result = compare(arm, np.zeros((3, 2)))
    half = math.sqrt(4.302653**2 / 3 + 12.706205**2 / 4)
    assert result.ci_high - result.difference == pytest.approx(half, rel=1e-6)


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


def test_a_constant_shift_is_certain():
    values = np.random.default_rng(1).random((3, 50))
    result = compare(values + 0.1, values)
    assert (result.ci_low, result.ci_high) == pytest.approx((0.1, 0.1))
    assert result.p_value == pytest.approx(0, abs=1e-9)


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


def test_arms_that_cannot_be_compared_keep_their_means_only():
    result = compare(np.array([[0.2, 0.4]]), np.full((2, 3), 0.1), "seeds differ")
    assert result.arm_mean == pytest.approx(0.3)
    assert result.baseline_mean == pytest.approx(0.1)
    assert result.verdict == "not comparable: seeds differ"
    assert result.difference is result.ci_low is result.p_value is result.gain_percent is None


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_from_few_seeds_luck_is_not_called_a_gain_even_in_far_tails(n_seeds):
    """Satterthwaite's degrees of freedom find p < 0.01 in 6 (2) of 100 such draws."""
    generator = np.random.default_rng(n_seeds)
    found = []
    for _ in range(400):
        differences = crossed(generator, n_seeds, 100, sd_seeds=0.2)
        found.append(compare(differences, np.zeros_like(differences)).p_value)
    assert np.mean(np.array(found) < 0.01) <= 0.0175
    assert np.mean(np.array(found) < 0.05) <= 0.07


def test_the_interval_at_a_level_holds_zero_where_the_test_does_not_reject():
    generator = np.random.default_rng(3)
    baseline, arm = np.zeros((3, 60)), crossed(generator, 3, 60, shift=0.2)
    found = compare(arm, baseline)
    for level, rejected in ((found.p_value * 1.001, True), (found.p_value * 0.999, False)):
        wide = at_level(found, arm, baseline, level)
        assert (wide.ci_low > 0) == rejected
        assert wide.ci_level == pytest.approx(1 - level)


def test_effect_size_is_positive_where_the_arm_is_better():
    values = np.random.default_rng(2).normal(1.0, 1.0, (2, 30))
    gain = compare(values, np.zeros((2, 30)))
    saved = compare(np.zeros((2, 30)), values, less_is_better=True)
    assert saved.effect_size == pytest.approx(gain.effect_size)
    assert gain.effect_size > 0
    assert compare(values + 1, values).effect_size is None  # users do not differ


def test_users_whom_a_replicate_lacks_change_nothing_that_is_balanced():
    generator = np.random.default_rng(3)
    whole = generator.normal(0.01, 0.1, (4, 1)) + generator.normal(0, 0.1, (4, 30))
    found = Spread.of(whole)
    rest = whole - whole.mean(1)[:, None] - whole.mean(0) + whole.mean()
    ms_e = (rest**2).sum() / (3 * 29)
    assert found.floor == pytest.approx(whole.mean(0).var(ddof=1) / 30)
    assert found.users == pytest.approx(max(found.floor - ms_e / 120, 0.0))
    assert (found.df_seeds, found.df_users) == (3, pytest.approx(29))
    by_user = [dict(zip(map(str, range(30)), row, strict=True)) for row in whole]
    expected = compare(whole, np.zeros_like(whole))
    assert over_nights(by_user, 0.95) == pytest.approx(
        (expected.difference, expected.ci_low, expected.ci_high)
    )


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_the_interval_over_nights_covers_however_many_users_return(shared):
    """Nights with the same users are no independent nights, as a t interval over nights says."""
    generator, hit, naive = np.random.default_rng(7), 0, 0
    nights, users, draws = 8, 40, 300
    for _ in range(draws):
        suits = generator.normal(0, 0.2, 1000)
        found = []
        for night in range(nights):
            back = generator.random(users) < shared
            own = np.arange(users) + np.where(back, 0, users * (night + 1))
            values = suits[own] + generator.normal(0, 0.01) + generator.normal(0, 0.1, users)
            found.append(dict(zip(map(str, own), values, strict=True)))
        _, low, high = over_nights(found, 0.95)
        hit += low <= 0 <= high
        means = np.array([np.mean(list(night.values())) for night in found])
        naive += abs(means.mean()) <= 2.365 * means.std(ddof=1) / np.sqrt(nights)
    assert 0.92 <= hit / draws <= 1.0
    assert naive / draws < 0.75 or shared == 0.0
