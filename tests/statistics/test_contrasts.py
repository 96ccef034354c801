from dataclasses import replace

import numpy as np
import pytest

from models.evaluation.user_scores import UserValues
from models.statistics.comparability import Terms
from models.statistics.contrasts import Run, contrasts, reference_models, slice_contrasts
from models.statistics.cross_experiment import across

TERMS = Terms("tiny", "aa", 40, 60, 6, "ndcg@10", 2048)
COLUMNS = [("recall", 10), ("ndcg", 10)]
USERS = np.array([f"u{n:02}" for n in range(40)])


def run(model, arm, seed, shift=0.0, terms=TERMS, users=USERS):
    generator = np.random.default_rng([seed, len(model)])
    ndcg = generator.random(len(USERS))[: len(users)] + shift
    ndcg = ndcg + np.random.default_rng([seed, len(arm)]).normal(0, 0.02, len(users))
    return Run(
        model, arm, seed, terms, UserValues(users, {("ndcg", 10): ndcg, ("recall", 10): ndcg})
    )


def grid(*arms, seeds=(1, 2, 3, 4)):
    return [run(model, arm, seed, shift) for model, arm, shift in arms for seed in seeds]


def found(runs):
    return {
        (of.model, of.arm, of.against): of.comparison
        for of in contrasts(runs, COLUMNS, "ndcg@10")
        if of.is_primary
    }


RUNS = grid(
    ("BPR", "baseline", 0.0),
    ("BPR", "transfer", 0.3),
    ("BPR", "shuffled", 0.1),
    ("EASE", "baseline", 0.2),
)


def test_who_is_held_against_whom():
    assert list(found(RUNS)) == [
        ("BPR", "transfer", "baseline"),
        ("BPR", "shuffled", "baseline"),
        ("BPR", "transfer", "shuffled"),
        ("BPR", "baseline", "EASE"),
        ("BPR", "transfer", "EASE"),
        ("BPR", "shuffled", "EASE"),
    ]


def test_differences_are_the_arms_minus_the_others():
    of = found(RUNS)["BPR", "transfer", "shuffled"]
    assert of.difference == pytest.approx(0.2, abs=0.01)
    assert (of.verdict, of.seeds, of.users) == ("better", 4, 40)
    assert of.baseline_mean == pytest.approx(found(RUNS)["BPR", "shuffled", "baseline"].arm_mean)
    low, high = of.users_ci_low, of.users_ci_high
    assert of.boot_ci_low <= low < of.difference < high <= of.boot_ci_high


def test_the_primary_metric_comes_first_and_each_is_corrected_for_itself():
    of_all = contrasts(RUNS, COLUMNS, "ndcg@10")
    assert [(of.metric, of.is_primary) for of in of_all] == [("ndcg", True)] * 6 + [
        ("recall", False)
    ] * 6
    raw = sorted(of.comparison.p_value for of in of_all[:6])
    smallest = min(of.comparison.p_adjusted for of in of_all[:6])
    assert smallest == pytest.approx(6 * raw[0])
    assert [of.comparison for of in of_all[:6]] == [of.comparison for of in of_all[6:]]


def test_references_are_computed_or_beside_models_that_know():
    assert reference_models([("BPR", "baseline"), ("EASE", "baseline")]) == ["EASE"]
    arms = [("BPR", "baseline"), ("BPR", "transfer"), ("LINE", "baseline"), ("EASE", "transfer")]
    assert reference_models(arms) == ["LINE"]
    assert reference_models([*arms, ("EASE", "baseline")]) == ["LINE", "EASE"]


def test_an_arm_with_another_budget_is_marked_and_does_not_count_in_the_correction():
    longer = [
        replace(of, terms=replace(TERMS, epochs_budget=90)) for of in RUNS if of.arm == "shuffled"
    ]
    of_all = found([of for of in RUNS if of.arm != "shuffled"] + longer)
    assert of_all["BPR", "shuffled", "baseline"].verdict == (
        "not comparable: epoch budgets differ (baseline 60; arm 90)"
    )
    assert of_all["BPR", "transfer", "shuffled"].verdict == (
        "not comparable: epoch budgets differ (shuffled 90; arm 60)"
    )
    assert of_all["BPR", "shuffled", "EASE"].users_ci_low is None
    best = of_all["BPR", "transfer", "baseline"]
    p_values = [of.p_value for of in of_all.values() if of.p_value is not None]
    assert len(p_values) == 3
    assert best.p_adjusted >= best.p_value


def test_batch_sizes_bind_arms_of_one_model():
    computed = replace(TERMS, batch_size=None)
    terms = {("EASE", "baseline"): computed, ("BPR", "shuffled"): replace(TERMS, batch_size=64)}
    of_all = found([replace(of, terms=terms.get((of.model, of.arm), TERMS)) for of in RUNS])
    assert of_all["BPR", "transfer", "EASE"].p_value is not None
    assert of_all["BPR", "shuffled", "EASE"].p_value is not None
    assert of_all["BPR", "transfer", "shuffled"].verdict == (
        "not comparable: batch sizes differ (shuffled 64; arm 2048)"
    )


def test_seeds_that_scored_different_users_are_not_compared():
    odd = [
        *RUNS[:-1],
        replace(
            RUNS[-1],
            values=UserValues(
                USERS[1:], {key: of[1:] for key, of in RUNS[-1].values.values.items()}
            ),
        ),
    ]
    of_all = found(odd)
    assert of_all["BPR", "transfer", "EASE"].verdict == (
        "not comparable: users differ between seeds"
    )
    assert of_all["BPR", "transfer", "baseline"].verdict == "better"


def test_slices_hold_arms_against_their_baselines_and_share_one_correction():
    halves = {
        name: [
            replace(
                of,
                values=UserValues(
                    USERS[part], {key: value[part] for key, value in of.values.values.items()}
                ),
            )
            for of in RUNS
        ]
        for name, part in (("first", slice(20)), ("second", slice(20, 40)))
    }
    of_slices = slice_contrasts(halves, COLUMNS, "ndcg@10")
    assert list(of_slices) == ["first", "second"]
    primary = [of for name in of_slices for of in of_slices[name] if of.is_primary]
    assert [(of.arm, of.against) for of in primary] == [
        ("transfer", "baseline"),
        ("shuffled", "baseline"),
    ] * 2
    assert {of.comparison.users for of in primary} == {20}
    smallest = min(of.comparison.p_value for of in primary)
    assert min(of.comparison.p_adjusted for of in primary) == pytest.approx(4 * smallest)
    assert primary[0].comparison.boot_ci_low is None
    assert slice_contrasts({}, COLUMNS, "ndcg@10") == {}


def test_two_experiments_meet_arm_by_arm():
    other = grid(("BPR", "transfer", 0.1), ("NeuMF", "transfer", 0.5))
    of_both = across({None: (RUNS, other)}, "second", "ndcg@10")
    assert [(of.model, of.arm, of.against, of.metric) for of in of_both] == [
        ("BPR", "transfer", "second", "ndcg"),
        ("BPR", "transfer", "second", "recall"),
    ]
    assert of_both[0].comparison.difference == pytest.approx(0.2)
    assert across({None: (RUNS, grid(("NeuMF", "transfer", 0.5)))}, "second", "ndcg@10") == []
