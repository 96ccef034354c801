from dataclasses import replace

import numpy as np
import pytest

from models.evaluation.user_scores import UserValues
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import (
    contrasts,
    experiment_contrasts,
    reference_models,
    slice_contrasts,
)

TERMS = Terms("tiny", "aa", 40, 60, 6, "ndcg@10", 2048)
COLUMNS = [("recall", 10), ("ndcg", 10)]
USERS = np.array([f"u{n:02}" for n in range(40)])


def run(model, arm, seed, shift=0.0, terms=TERMS, users=USERS):
    generator = np.random.default_rng([seed, len(model)])
    ndcg = generator.random(len(USERS))[: len(users)] + shift
    ndcg = ndcg + np.random.default_rng([seed, len(arm)]).normal(0, 0.02, len(users))
    values = UserValues(users, {("ndcg", 10): ndcg, ("recall", 10): ndcg})
    return Run(model, arm, seed, terms, values, run_id=f"{model} {arm} {seed} {shift}")


def grid(*arms, seeds=(1, 2, 3, 4)):
    return [run(model, arm, seed, shift) for model, arm, shift in arms for seed in seeds]


def found(runs):
    return {
        (each.model, each.arm, each.against): each.estimate
        for each in contrasts({None: runs}, COLUMNS, "ndcg@10")
        if each.is_primary
    }


RUNS = grid(
    ("BPR", "baseline", 0.0),
    ("BPR", "transfer", 0.3),
    ("BPR", "shuffled", 0.1),
    ("EASE", "baseline", 0.2),
)


def test_which_arms_are_compared():
    assert list(found(RUNS)) == [
        ("BPR", "transfer", "baseline"),
        ("BPR", "shuffled", "baseline"),
        ("BPR", "transfer", "shuffled"),
        ("BPR", "baseline", "EASE"),
        ("BPR", "transfer", "EASE"),
        ("BPR", "shuffled", "EASE"),
    ]


def test_differences_are_the_arms_minus_the_others():
    gain = found(RUNS)["BPR", "transfer", "shuffled"]
    assert gain.difference == pytest.approx(0.2, abs=0.01)
    assert (gain.verdict, gain.seeds, gain.users) == ("better", 4, 40)
    assert gain.baseline_mean == pytest.approx(found(RUNS)["BPR", "shuffled", "baseline"].arm_mean)
    assert gain.ci_low <= gain.difference <= gain.ci_high


def test_the_primary_metric_comes_first_and_each_is_corrected_for_itself():
    everything = contrasts({None: RUNS}, COLUMNS, "ndcg@10")
    assert [(each.metric, each.is_primary) for each in everything] == [("ndcg", True)] * 6 + [
        ("recall", False)
    ] * 6
    estimates = [each.estimate for each in everything]
    smallest = min(each.p_value for each in estimates[:6])
    assert min(each.p_adjusted for each in estimates[:6]) == pytest.approx(6 * smallest)
    assert estimates[:6] == estimates[6:]


def test_references_are_computed_or_beside_models_that_know():
    assert reference_models([("BPR", "baseline"), ("EASE", "baseline")]) == ["EASE"]
    arms = [("BPR", "baseline"), ("BPR", "transfer"), ("LINE", "baseline"), ("EASE", "transfer")]
    assert reference_models(arms) == ["LINE"]
    assert reference_models([*arms, ("EASE", "baseline")]) == ["LINE", "EASE"]


def test_an_arm_with_another_budget_is_marked_and_does_not_count_in_the_correction():
    longer = [
        replace(each, terms=replace(TERMS, epochs_budget=90))
        for each in RUNS
        if each.arm == "shuffled"
    ]
    compared = found([each for each in RUNS if each.arm != "shuffled"] + longer)
    assert compared["BPR", "shuffled", "baseline"].verdict == (
        "not comparable: epoch budgets differ (baseline 60; arm 90)"
    )
    assert compared["BPR", "transfer", "shuffled"].verdict == (
        "not comparable: epoch budgets differ (shuffled 90; arm 60)"
    )
    assert compared["BPR", "shuffled", "EASE"].ci_low is None
    best = compared["BPR", "transfer", "baseline"]
    p_values = [each.p_value for each in compared.values() if each.p_value is not None]
    assert len(p_values) == 3
    assert best.p_adjusted >= best.p_value


def test_batch_sizes_bind_arms_of_one_model():
    computed = replace(TERMS, batch_size=None)
    terms = {("EASE", "baseline"): computed, ("BPR", "shuffled"): replace(TERMS, batch_size=64)}
    compared = found(
        [replace(each, terms=terms.get((each.model, each.arm), TERMS)) for each in RUNS]
    )
    assert compared["BPR", "transfer", "EASE"].p_value is not None
    assert compared["BPR", "shuffled", "EASE"].p_value is not None
    assert compared["BPR", "transfer", "shuffled"].verdict == (
        "not comparable: batch sizes differ (shuffled 64; arm 2048)"
    )


def test_seeds_that_scored_different_users_are_not_compared():
    odd = [
        *RUNS[:-1],
        replace(
            RUNS[-1],
            values=UserValues(
                USERS[1:], {key: value[1:] for key, value in RUNS[-1].values.values.items()}
            ),
        ),
    ]
    compared = found(odd)
    assert compared["BPR", "transfer", "EASE"].verdict == (
        "not comparable: users differ between seeds"
    )
    assert compared["BPR", "transfer", "baseline"].verdict == "better"


def test_slices_compare_arms_with_their_baselines_and_share_one_correction():
    halves = {
        name: {
            None: [
                replace(
                    each,
                    values=UserValues(
                        USERS[part], {key: value[part] for key, value in each.values.values.items()}
                    ),
                )
                for each in RUNS
            ]
        }
        for name, part in (("first", slice(20)), ("second", slice(20, 40)))
    }
    by_slice = slice_contrasts(halves, COLUMNS, "ndcg@10")
    assert list(by_slice) == ["first", "second"]
    primary = [each for name in by_slice for each in by_slice[name] if each.is_primary]
    assert [(each.arm, each.against) for each in primary] == [
        ("transfer", "baseline"),
        ("shuffled", "baseline"),
    ] * 2
    assert {each.estimate.users for each in primary} == {20}
    smallest = min(each.estimate.p_value for each in primary)
    assert min(each.estimate.p_adjusted for each in primary) == pytest.approx(4 * smallest)
    assert slice_contrasts({}, COLUMNS, "ndcg@10") == {}


def test_two_experiments_are_compared_arm_by_arm():
    other = grid(("BPR", "transfer", 0.1), ("NeuMF", "transfer", 0.5))
    compared = experiment_contrasts({None: (RUNS, other)}, "second", "ndcg@10")
    assert [(each.model, each.arm, each.against, each.metric) for each in compared] == [
        ("BPR", "transfer", "second", "ndcg"),
        ("BPR", "transfer", "second", "recall"),
    ]
    assert compared[0].estimate.difference == pytest.approx(0.2)
    apart = {None: (RUNS, grid(("NeuMF", "transfer", 0.5)))}
    assert experiment_contrasts(apart, "second", "ndcg@10") == []


def test_a_row_holds_the_contrast_and_its_estimate_side_by_side():
    [first, *_] = contrasts({None: RUNS}, COLUMNS, "ndcg@10")
    row = first.row()
    assert (row["model"], row["against"], row["k"]) == ("BPR", "baseline", 10)
    assert {key: row[key] for key in vars(first.estimate)} == vars(first.estimate)
    assert list(row) == [
        *("model", "arm", "against", "metric", "k", "is_primary", "point"),
        *("baseline_mean", "baseline_sd", "arm_mean", "arm_sd", "gain_percent", "difference"),
        *("ci_low", "ci_high", "p_value", "p_adjusted", "effect_size", "seeds", "users", "verdict"),
    ]
