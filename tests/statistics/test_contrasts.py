from dataclasses import replace

import numpy as np
import pytest

from models.config import Claims
from models.evaluation.user_scores import UserValues
from models.recommenders.registry import reference_models
from models.statistics.claims import declare
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import contrasts, experiment_contrasts, slice_contrasts
from models.statistics.paired_comparison import compare

TERMS = Terms("tiny", "aa", 40, 60, 6, "ndcg@10", 2048)
COLUMNS = [("recall", 10), ("ndcg", 10)]
USERS = np.array([f"u{n:02}" for n in range(40)])


def run(model, arm, seed, shift=0.0, terms=TERMS, users=USERS, alpha=0.3):
    generator = np.random.default_rng([seed, len(model)])
    ndcg = generator.random(len(USERS))[: len(users)] + shift
    ndcg = ndcg + np.random.default_rng([seed, *arm.encode()]).normal(0, 0.02, len(users))
    values = UserValues(users, {("ndcg", 10): ndcg, ("recall", 10): ndcg})
    return Run(
        model,
        arm,
        seed,
        terms,
        values,
        run_id=f"{model} {arm} {seed} {shift} {terms}",
        alpha=alpha if arm != "baseline" else None,
    )


def grid(*arms, seeds=(1, 2, 3, 4)):
    return [run(model, arm, seed, shift) for model, arm, shift in arms for seed in seeds]


FAMILY = declare(
    Claims(),
    {None: [("BPR", arm) for arm in ("baseline", "transfer", "shuffled")] + [("EASE", "baseline")]},
    {(None, "EASE"): 0.5},
)


def found(runs, family=FAMILY):
    return {
        (each.model, each.arm, each.against): each.estimate
        for each in contrasts({None: runs}, COLUMNS, "ndcg@10", family)
        if each.is_primary
    }


RUNS = grid(
    ("BPR", "baseline", 0.0),
    ("BPR", "transfer", 0.3),
    ("BPR", "shuffled", 0.1),
    ("EASE", "baseline", -0.2),
)


def test_which_arms_are_compared():
    assert list(found(RUNS)) == [
        ("BPR", "transfer", "baseline"),
        ("BPR", "shuffled", "baseline"),
        ("BPR", "transfer", "shuffled"),
        ("BPR", "baseline", "EASE"),
        ("BPR", "transfer", "EASE"),
    ]


def test_differences_are_the_arms_minus_the_others():
    gain = found(RUNS)["BPR", "transfer", "shuffled"]
    assert gain.difference == pytest.approx(0.2, abs=0.01)
    assert (gain.verdict, gain.seeds, gain.users) == ("better", 4, 40)
    assert gain.baseline_mean == pytest.approx(found(RUNS)["BPR", "shuffled", "baseline"].arm_mean)
    assert gain.ci_low <= gain.difference <= gain.ci_high


def test_claims_have_verdicts_and_everything_else_is_exploratory():
    everything = contrasts({None: RUNS}, COLUMNS, "ndcg@10", FAMILY)
    assert [(each.metric, each.is_primary) for each in everything] == [("ndcg", True)] * 5 + [
        ("recall", False)
    ] * 5
    said = {
        (each.arm, each.against): (each.claim, each.estimate.verdict) for each in everything[:5]
    }
    assert said == {
        ("transfer", "baseline"): ("A", "better"),
        ("shuffled", "baseline"): (None, "exploratory"),
        ("transfer", "shuffled"): ("B", "better"),
        ("baseline", "EASE"): (None, "exploratory"),
        ("transfer", "EASE"): ("C", "better"),
    }
    for each in everything:
        assert (each.estimate.p_adjusted is None) == (each.claim is None)
        assert each.estimate.p_value is not None
    assert {each.claim for each in everything[5:]} == {None}
    assert {each.estimate.verdict for each in everything[5:]} == {"exploratory"}


def test_a_further_reference_takes_nothing_from_what_is_claimed():
    more = found([*RUNS, *grid(("Pop", "baseline", -0.5))])
    for key, estimate in found(RUNS).items():
        assert more[key] == estimate


def test_above_every_control_takes_every_control():
    weak = grid(("BPR", "noise", 0.3))  # as good as transfer
    controls = {None: [(run.model, run.arm) for run in [*RUNS, *weak]]}
    family = declare(Claims(), controls, {(None, "EASE"): 0.5})
    compared = found([*RUNS, *weak], family)
    for control in ("shuffled", "noise"):
        assert compared["BPR", "transfer", control].verdict == "not above every control"
    assert compared["BPR", "transfer", "EASE"].verdict == "not tested: a step before failed"
    # A control that was declared and is missing decides nothing.
    missing = found(RUNS, family)["BPR", "transfer", "shuffled"].verdict
    assert missing == "not tested: a comparison of this step decides nothing"


def test_one_seed_decides_nothing_but_for_models_in_closed_form():
    one = grid(
        *(("BPR", arm, shift) for arm, shift in (("baseline", 0), ("transfer", 0.3))),
        *(("EASE", arm, shift) for arm, shift in (("baseline", 0), ("transfer", 0.3))),
        seeds=(1,),
    )
    family = declare(Claims(), {None: [(x.model, x.arm) for x in one]}, {(None, "EASE"): 1})
    compared = found(one, family)
    bpr, ease = (compared[model, "transfer", "baseline"] for model in ("BPR", "EASE"))
    assert (bpr.verdict, bpr.p_value, bpr.p_adjusted) == ("one seed: undecided", None, None)
    assert bpr.ci_low < bpr.difference < bpr.ci_high
    assert ease.verdict == "better"
    # BPR's chain is blocked and keeps its half of the level.
    assert ease.p_adjusted == pytest.approx(2 * ease.p_value)
    other = compared["BPR", "baseline", "EASE"]
    assert (other.verdict, other.p_value) == ("one seed: exploratory", None)


def test_ten_splits_of_one_seed_are_ten_replicates_and_degrees_of_freedom_follow_splits():
    def on(split, seed, users=USERS):
        terms = replace(TERMS, split_digest=split)
        return [
            replace(run("BPR", arm, seed, shift, terms, users), run_id=f"{arm} {split} {seed}")
            for arm, shift in (("baseline", 0.0), ("transfer", 0.3))
        ]

    def gain(runs):
        return found(runs)["BPR", "transfer", "baseline"]

    ten = gain([each for n in range(10) for each in on(f"s{n}", 1)])
    assert (ten.splits, ten.seeds, ten.verdict) == (10, 1, "better")
    assert ten.baseline_sd is not None
    pairs = [on(split, seed) for split in ("s1", "s2") for seed in (1, 2)]
    two = gain([each for pair in pairs for each in pair])
    assert (two.splits, two.seeds) == (2, 2)
    values = [
        np.mean([pair[arm].values.values["ndcg", 10] for pair in pairs[half : half + 2]], axis=0)
        for arm in (1, 0)
        for half in (0, 2)
    ]
    by_hand = compare(np.stack(values[:2]), np.stack(values[2:]))
    assert (two.ci_low, two.p_value) == (by_hand.ci_low, by_hand.p_value)
    # The same data under another split seed is no further replicate.
    same = gain([*on("s1", 1), *[replace(each, run_id="x" + each.run_id) for each in on("s1", 1)]])
    assert same.verdict == "one seed: undecided"
    # Users that a split does not score are left out of all.
    some = gain([*on("s1", 1), *on("s2", 1, USERS[:30])])
    assert (some.users, some.splits) == (30, 2)


def test_no_transfer_chosen_is_a_verdict_without_p():
    none = [replace(each, alpha=0.0) if each.arm == "transfer" else each for each in RUNS]
    compared = found(none)
    own = compared["BPR", "transfer", "baseline"]
    assert (own.verdict, own.p_value, own.p_adjusted) == ("no transfer chosen", None, None)
    assert compared["BPR", "transfer", "shuffled"].verdict == "no transfer chosen"
    assert compared["BPR", "shuffled", "baseline"].verdict == "exploratory"
    once = [replace(each, alpha=0.0) if each.seed == 1 else each for each in RUNS]
    assert found(once)["BPR", "transfer", "baseline"].verdict == "better"


@pytest.mark.parametrize("seed", range(30))
def test_no_verdict_contradicts_its_interval(seed):
    generator = np.random.default_rng(seed)
    arms = ("baseline", "transfer", "shuffled", "noise")
    runs = [
        run(model, arm, n, generator.normal(0, 0.03))
        for model in ("BPR", "NeuMF", "EASE")
        for arm in arms
        for n in (1, 2, 3)
    ]
    claimed = {None: [(each.model, each.arm) for each in runs]}
    for (_, _, against), each in found(
        runs, declare(Claims(), claimed, {(None, "EASE"): 1})
    ).items():
        excludes = not each.ci_low <= 0 <= each.ci_high
        if each.verdict in ("better", "worse"):
            assert (each.ci_low > 0) if each.verdict == "better" else (each.ci_high < 0)
        if each.verdict == "no detectable difference":
            assert not excludes
        if each.verdict == "not above the best reference":
            assert each.ci_low <= 0
        assert against != "EASE" or each.verdict != "no detectable difference"


def test_references_are_computed_or_beside_models_that_know():
    assert reference_models([("BPR", "baseline"), ("EASE", "baseline")]) == ["EASE"]
    arms = [("BPR", "baseline"), ("BPR", "transfer"), ("LINE", "baseline"), ("EASE", "transfer")]
    assert reference_models(arms) == ["LINE"]
    assert reference_models([*arms, ("EASE", "baseline")]) == ["LINE", "EASE"]


def test_an_arm_with_another_budget_is_marked_and_blocks_what_comes_after():
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
    assert compared["BPR", "transfer", "shuffled"].ci_low is None
    assert compared["BPR", "transfer", "baseline"].verdict == "better"
    assert compared["BPR", "transfer", "EASE"].verdict == "not tested: a step before failed"


def test_hyper_parameters_are_no_terms():
    tuned = [
        replace(each, terms=replace(TERMS, batch_size=64)) if each.arm == "transfer" else each
        for each in RUNS
    ]
    assert found(tuned) == found(RUNS)


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


def test_slices_compare_arms_with_their_baselines_without_verdicts():
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
    assert {each.estimate.verdict for each in primary} == {"exploratory"}
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
        *("model", "arm", "against", "metric", "k", "is_primary", "point", "claim"),
        "search_trials",
        *("baseline_mean", "baseline_sd", "arm_mean", "arm_sd", "gain_percent", "difference"),
        *("ci_low", "ci_high", "ci_level", "p_value", "p_adjusted", "effect_size"),
        *("seeds", "splits", "users", "verdict"),
    ]
