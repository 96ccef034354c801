"""Contrasts of several points: shared pairs once, and no verdict."""

import numpy as np

from models.evaluation.user_scores import UserValues
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import contrasts

USERS = np.array([f"u{n}" for n in range(30)])
COLUMN = ("ndcg", 10)


def run(run_id, arm, gain, seed=1, trials=0, model="BPR"):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.2, 0.4, 30) + gain * np.linspace(0.5, 1.5, 30)
    terms = Terms("d", "aa", 40, 4, 2, "ndcg@10", None if model == "EASE" else 64, trials)
    return Run(model, arm, seed, terms, UserValues(USERS, {COLUMN: values}), run_id)


def arms(name, arm, gain, **changes):
    return [run(f"{name}{seed}", arm, gain, seed, **changes) for seed in (1, 2, 3)]


BASELINE = arms("b", "baseline", 0.0)
EASE = arms("e", "baseline", 0.1, model="EASE")
POINTS = {
    "small": [*BASELINE, *arms("s", "transfer", 0.01), *EASE],
    "large": [*BASELINE, *arms("l", "transfer", 0.2), *EASE],
}


def test_what_points_share_is_compared_once():
    found = contrasts(POINTS, [COLUMN], "ndcg@10")
    assert [(each.point, each.arm, each.against) for each in found] == [
        ("small", "transfer", "baseline"),
        (None, "baseline", "EASE"),
        ("small", "transfer", "EASE"),
        ("large", "transfer", "baseline"),
        ("large", "transfer", "EASE"),
    ]
    (alone,) = (
        each.estimate
        for each in contrasts({"small": POINTS["small"]}, [COLUMN], "ndcg@10")
        if each.against == "baseline"
    )
    (among,) = (
        each.estimate for each in found if (each.point, each.against) == ("small", "baseline")
    )
    assert among.difference == alone.difference
    assert among.ci_low == alone.ci_low
    assert {each.estimate.verdict for each in found} == {"exploratory"}  # a sweep


def test_unequal_numbers_of_trials_are_not_comparable():
    points = {"p": [*arms("b", "baseline", 0.0, trials=3), *arms("t", "transfer", 0.2, trials=9)]}
    (contrast,) = contrasts(points, [COLUMN], "ndcg@10")
    assert contrast.estimate.verdict == ("not comparable: search trials differ (baseline 3; arm 9)")
