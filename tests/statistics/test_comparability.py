from dataclasses import replace

import numpy as np
import pytest

from models.config import Job
from models.evaluation.user_scores import UserValues
from models.statistics.comparability import Run, Terms, obstacle, split_digest
from tests.support import toy_runs
from tests.support.toy_world import train

TERMS = Terms("ml-100k", "aa", 40, 60, 6, "ndcg@10", 2048)


def runs(seeds=(1, 2), users=("a", "b"), model="BPR", **changes):
    values, terms = UserValues(np.array(users), {}), replace(TERMS, **changes)
    return [Run(model, "transfer", seed, terms, values, f"{model} {seed}") for seed in seeds]


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (runs(), None),
        (runs(seeds=(1,)), "seeds differ (baseline 1, 2; arm 1)"),
        (runs(epochs_budget=90), "epoch budgets differ (baseline 60; arm 90)"),
        (runs(patience=9), "patience differs (baseline 6; arm 9)"),
        (runs(valid_metric="auc"), "early-stopping metrics differ (baseline ndcg@10; arm auc)"),
        (runs(dataset="ml-1m"), "data sets differ (baseline ml-100k; arm ml-1m)"),
        (runs(split_digest="bb"), "splits differ (baseline aa; arm bb)"),
        (runs(candidate_items=9), "candidate sets differ (baseline 40; arm 9)"),
        (runs(batch_size=64), None),  # searched, like every hyper-parameter
        (runs(batch_size=None), None),
        (runs(search_trials=20), "search trials differ (baseline 0; arm 20)"),
        (runs(users=("a", "c")), "users differ (2 scored in one arm only)"),
    ],
)
def test_what_must_be_equal(arm, reason):
    assert obstacle(arm, runs()) == reason


def test_budgets_must_be_equal_seed_by_seed():
    uneven = [*runs(seeds=(1,)), *runs(seeds=(2,), epochs_budget=90)]
    assert obstacle(uneven, runs()) == "epoch budgets differ (baseline 60; arm 60, 90)"


def test_a_single_user_is_not_enough():
    assert obstacle(runs(users=("a",)), runs(users=("a",))) == ("fewer than 2 users were scored")


def test_splits_are_compared_with_the_same_splits_and_users_may_differ_between_them():
    first, second = runs(seeds=(1,)), runs(seeds=(1,), users=("b", "c", "d"), split_digest="bb")
    assert obstacle([*first, *second], [*first, *second]) == "fewer than 2 users were scored"
    third = runs(seeds=(1,), users=("a", "b", "d"), split_digest="cc")
    assert obstacle([*second, *third], [*second, *third]) is None
    assert obstacle([*first, *third], first) == "splits differ (baseline aa; arm aa, cc)"
    more = [*third, *runs(seeds=(2,), users=("a", "b", "d"), split_digest="cc")]
    assert (
        obstacle([*first, *more], [*first, *third]) == "seeds differ (baseline 1, 1; arm 1, 1, 2)"
    )
    odd = runs(seeds=(1,), users=("a", "b"), split_digest="cc")
    assert obstacle([*second, *odd], [*second, *third]) == "users differ (1 scored in one arm only)"


def test_the_other_side_is_named():
    other = runs(batch_size=None, model="EASE")
    assert obstacle(runs(), other, "EASE") is None
    assert obstacle(runs(seeds=(3,)), other, "EASE") == "seeds differ (EASE 1, 2; arm 3)"


def test_terms_of_a_job_know_recboles_own_batch_size():
    config = toy_runs.pipeline(
        models={"BPR": {}, "NeuMF": {"hyperparameters": {"train_batch_size": 64}}, "EASE": {}}
    )
    terms = {
        model: Terms.of(Job.of(config, model, "baseline", 1, {}), "tiny", "aa", 9)
        for model in config.models
    }
    assert terms["BPR"] == Terms("tiny", "aa", 9, 4, 5, "recall@2", 2048)
    assert terms["NeuMF"].batch_size == 64
    assert terms["EASE"].batch_size is None


def test_a_splits_digest_is_of_its_pairs_alone():
    rows = [("u1", "i1", 5.0, 3), ("u1", "i2", 1.0, 4), ("u2", "i1", 2.0, 5), ("u3", "i2")]
    whole, part = train(*rows), train(*rows[:2])
    same = split_digest(train(*reversed(rows)), part)
    assert split_digest(whole, part) == same
    assert split_digest(train(*rows, rows[0]).slice(0, 4), part) == same
    assert split_digest(part, whole) != same
    assert split_digest(train(*rows[:3], ("u2", "i2")), part) != same
    assert split_digest(train(("a", "bc")), part) != split_digest(train(("ab", "c")), part)
