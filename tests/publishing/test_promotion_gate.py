"""The gate's arithmetic, against values computed by hand and simulated coverage."""

import numpy as np
import pytest
from pydantic import ValidationError

from models.config import Pipeline
from models.publishing.promotion_gate import decide, first_champion, too_few_new, too_few_users
from models.statistics.paired_comparison import Estimate, compare


def gain(challenger, champion, confidence=0.95):
    return compare(challenger[None], champion[None], confidence=confidence)


def estimate(champion, challenger, difference, low, high, users):
    return Estimate(
        baseline_mean=champion,
        baseline_sd=None,
        arm_mean=challenger,
        arm_sd=None,
        difference=difference,
        ci_low=low,
        ci_high=high,
        seeds=1,
        users=users,
        verdict="",
    )


def test_the_interval_of_one_night_is_the_paired_t_interval_over_users():
    from scipy.stats import ttest_rel

    random = np.random.default_rng(5)
    ours, theirs = random.random(50), random.random(50)
    for confidence in (0.8, 0.95):
        expected = ttest_rel(ours, theirs).confidence_interval(confidence)
        found = gain(ours, theirs, confidence)
        assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))


def test_equal_models_gain_nothing_for_certain():
    values = np.array([0.2, 0.9, 0.0])
    found = gain(values, values)
    assert (found.baseline_mean, found.arm_mean) == pytest.approx((1.1 / 3, 1.1 / 3))
    assert (found.difference, found.ci_low, found.ci_high, found.users) == (0.0, 0.0, 0.0, 3)
    assert decide(found, "NDCG@10", 0.95, 0.0).outcome == "published"


def test_a_constant_gain_has_an_interval_of_no_width():
    champion = np.array([0.25, 0.5, 0.0, 0.125])
    found = gain(champion + 0.25, champion)
    assert (found.difference, found.ci_low, found.ci_high) == (0.25, 0.25, 0.25)


def test_pairing_counts():
    """Users who differ a lot from each other do not widen the interval of a steady gain."""
    random = np.random.default_rng(0)
    champion = random.uniform(0, 1, 300)
    steady = champion + random.normal(0.02, 0.01, 300)
    paired = gain(steady, champion)
    broken = gain(random.permutation(steady), champion)
    assert paired.ci_high - paired.ci_low < 0.004
    assert broken.ci_high - broken.ci_low > 0.05


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    """400 worlds with a true gain of 0.01: NDCG-like differences, most of them zero."""
    random = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        moved = random.random(150) < 0.3
        differences = np.where(moved, random.normal(0.01 / 0.3, 0.2, 150), 0.0)
        found = gain(differences, np.zeros(150))
        covered += found.ci_low <= 0.01 <= found.ci_high
    assert 0.91 <= covered / 400 <= 0.98  # binomial with 400 draws: sd 1.1 %


def test_worse_challengers_pass_as_rarely_as_the_tolerance_allows():
    """A challenger worse by just the tolerance passes in about 2.5 % of the worlds."""
    random = np.random.default_rng(7)
    passed = 0
    for _ in range(400):
        differences = random.normal(-0.02, 0.1, 200)
        found = gain(differences, np.zeros(200))
        passed += decide(found, "NDCG@10", 0.95, 0.02).outcome == "published"
    assert passed / 400 < 0.06


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([0.5], [0.5]), ([0.1, 0.2], [0.1]), ([0.1, np.nan], [0.1, 0.2]), ([], [])],
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_what_cannot_be_paired_is_refused(ours, theirs):
    with pytest.raises(ValueError, match=r"pairs of users are needed|finite"):
        gain(np.array(ours), np.array(theirs))


@pytest.mark.parametrize(
    ("low", "tolerance", "outcome"),
    [
        (-0.01, 0.01, "published"),
        (-0.010001, 0.01, "kept"),
        (0.0, 0.0, "published"),
        (-1e-9, 0.0, "kept"),
        (0.3, 0.0, "published"),
    ],
)
def test_the_lower_end_decides(low, tolerance, outcome):
    found = estimate(0.2, 0.2, 0.0, low, 0.4, 10)
    assert decide(found, "NDCG@10", 0.95, tolerance).outcome == outcome


def test_decisions_say_why():
    found = estimate(0.2098, 0.2131, 0.0033, -0.0012, 0.0078, 412)
    assert decide(found, "NDCG@10", 0.95, 0.01).reason == (
        "NDCG@10 0.2131 against the champion's 0.2098 over 412 users, difference +0.0033; the "
        "95 % interval from −0.0012 to +0.0078 does not reach below −0.0100"
    )
    assert decide(found, "NDCG@10", 0.95, 0.001).reason.endswith("reaches below −0.0010")
    assert decide(found, "NDCG@10", 0.95, 0.0).reason.endswith("reaches below 0.0000")
    assert first_champion("NDCG@10", 0.1, 7).reason == "first champion, NDCG@10 0.1000 over 7 users"
    assert too_few_new(3, 100).reason == "3 new interactions, 100 needed"
    assert too_few_new(1, 2).reason == "1 new interaction, 2 needed"
    assert too_few_new(100, 100) is None
    assert too_few_new(0, 0) is None
    assert too_few_users(1).outcome == "kept"


def test_the_night_has_its_own_split_and_one_training():
    given = {"experiment": "x", "models": {"BPR": {}, "LightGCN": {}}}
    pipeline = Pipeline.model_validate(
        given | {"nightly": {"split": {"ratios": [0.8, 0.1, 0.1]}, "model": "LightGCN"}}
    )
    tonight = pipeline.tonight()
    assert pipeline.split.strategy == "random"
    assert (tonight.split.strategy, tonight.split.short_histories) == ("temporal", "train")
    assert list(tonight.models) == ["LightGCN"]
    assert (tonight.training.arms, tonight.training.seeds) == (("transfer",), (1,))
    assert pipeline.digest() == Pipeline.model_validate(given).digest()  # comparisons stay cached


@pytest.mark.parametrize(
    ("nightly", "message"),
    [
        ({"model": "NeuMF"}, "nightly.model is NeuMF, but models has BPR"),
        ({"split": {"strategy": "random"}}, "use temporal or leave-one-out"),
        ({"metric": "auc"}, "a metric METRIC@K is needed"),
        ({"tolerance": -0.1}, "greater than or equal to 0"),
        ({"keep_versions": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_make_no_night_are_refused(nightly, message):
    with pytest.raises(ValidationError, match=message):
        Pipeline.model_validate({"experiment": "x", "models": {"BPR": {}}, "nightly": nightly})
