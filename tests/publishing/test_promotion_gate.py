"""The gate's arithmetic, against values computed by hand and simulated coverage."""

import numpy as np
import pytest
from pydantic import ValidationError

from models.config import Pipeline
from models.publishing.promotion_gate import (
    Gain,
    decide,
    first_champion,
    gain,
    too_few_new,
    too_few_users,
)


def test_two_users_have_three_possible_means_with_known_shares():
    # Differences 0 and 1: a sample of two has mean 0, ½ or 1 with probability ¼, ½, ¼.
    found = gain(np.array([0.5, 1.0]), np.array([0.5, 0.0]), 0.9, 20_000, seed=1)
    assert found == Gain(0.25, 0.75, 0.5, 0.0, 1.0, 2)
    # At 40 % each tail holds 30 %, more than the quarter that lies at either end.
    narrow = gain(np.array([0.5, 1.0]), np.array([0.5, 0.0]), 0.4, 20_000, seed=1)
    assert (narrow.ci_low, narrow.ci_high) == (0.5, 0.5)


def test_equal_models_gain_nothing_for_certain():
    values = np.array([0.2, 0.9, 0.0])
    assert gain(values, values, 0.95, 1000, seed=3) == Gain(
        pytest.approx(1.1 / 3), pytest.approx(1.1 / 3), 0.0, 0.0, 0.0, 3
    )


def test_a_constant_gain_has_an_interval_of_no_width():
    champion = np.array([0.25, 0.5, 0.0, 0.125])
    found = gain(champion + 0.25, champion, 0.95, 500, seed=0)
    assert (found.difference, found.ci_low, found.ci_high) == (0.25, 0.25, 0.25)


def test_pairing_counts():
    """Users who differ a lot from each other do not widen the interval of a steady gain."""
    random = np.random.default_rng(0)
    champion = random.uniform(0, 1, 300)
    steady = champion + random.normal(0.02, 0.01, 300)
    paired = gain(steady, champion, 0.95, 2000, seed=1)
    broken = gain(random.permutation(steady), champion, 0.95, 2000, seed=1)
    assert paired.ci_high - paired.ci_low < 0.004
    assert broken.ci_high - broken.ci_low > 0.05


def test_the_seed_decides_the_draws():
    random = np.random.default_rng(4)
    ours, theirs = random.random(30), random.random(30)
    first = gain(ours, theirs, 0.95, 500, seed=7)
    assert first == gain(ours, theirs, 0.95, 500, seed=7)
    assert first != gain(ours, theirs, 0.95, 500, seed=8)


def test_many_users_are_drawn_in_blocks_that_fit_into_memory():
    random = np.random.default_rng(5)
    ours = random.normal(0.1, 1, 50_000)
    found = gain(ours, np.zeros(50_000), 0.95, 400, seed=1)
    # The interval of a mean of normal values: ± 1.96 / sqrt(n), found within sampling error.
    half = (found.ci_high - found.ci_low) / 2
    assert half == pytest.approx(1.96 / np.sqrt(50_000), rel=0.15)


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    """400 worlds with a true gain of 0.01: NDCG-like differences, most of them zero."""
    random = np.random.default_rng(6)
    covered = 0
    for world in range(400):
        moved = random.random(150) < 0.3
        differences = np.where(moved, random.normal(0.01 / 0.3, 0.2, 150), 0.0)
        found = gain(differences, np.zeros(150), 0.95, 800, seed=world)
        covered += found.ci_low <= 0.01 <= found.ci_high
    # Binomial with 400 draws: sd 1.1 %; the percentile interval is a little too narrow.
    assert 0.91 <= covered / 400 <= 0.98


def test_worse_challengers_pass_as_rarely_as_the_tolerance_allows():
    """A challenger worse by just the tolerance passes in about 2.5 % of the worlds."""
    random = np.random.default_rng(7)
    passed = 0
    for world in range(400):
        differences = random.normal(-0.02, 0.1, 200)
        found = gain(differences, np.zeros(200), 0.95, 600, seed=world)
        passed += decide(found, "NDCG@10", 0.95, 0.02).outcome == "published"
    assert passed / 400 < 0.06


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([0.5], [0.5]), ([0.1, 0.2], [0.1]), ([0.1, np.nan], [0.1, 0.2]), ([], [])],
)
def test_what_cannot_be_paired_is_refused(ours, theirs):
    with pytest.raises(ValueError, match=r"pairs are needed|finite"):
        gain(np.array(ours), np.array(theirs), 0.95, 100, seed=1)


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
    found = Gain(0.2, 0.2, 0.0, low, 0.4, 10)
    assert decide(found, "NDCG@10", 0.95, tolerance).outcome == outcome


def test_decisions_say_why():
    found = Gain(0.2098, 0.2131, 0.0033, -0.0012, 0.0078, 412)
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
