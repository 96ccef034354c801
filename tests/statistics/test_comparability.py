from dataclasses import replace

import numpy as np
import pytest

from models.config import Job
from models.statistics.comparability import BATCH_SIZE, Protocol, Terms, obstacle, split_digest
from tests.support import toy_runs
from tests.support.arrow_tables import train

TERMS = Terms("ml-100k", "aa", 40, 60, 6, "ndcg@10", 2048)


def protocol(seeds=(1, 2), users=("a", "b"), **changes):
    return Protocol(seeds, np.array(users), (replace(TERMS, **changes),) * len(seeds))


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        (protocol(), None),
        (protocol(seeds=(1,)), "seeds differ (baseline 1, 2; arm 1)"),
        (protocol(epochs_budget=90), "epoch budgets differ (baseline 60; arm 90)"),
        (protocol(patience=9), "patience differs (baseline 6; arm 9)"),
        (protocol(valid_metric="auc"), "early-stopping metrics differ (baseline ndcg@10; arm auc)"),
        (protocol(dataset="ml-1m"), "data sets differ (baseline ml-100k; arm ml-1m)"),
        (protocol(split_digest="bb"), "splits differ (baseline aa; arm bb)"),
        (protocol(candidate_items=9), "candidate sets differ (baseline 40; arm 9)"),
        (protocol(batch_size=64), "batch sizes differ (baseline 2048; arm 64)"),
        (protocol(batch_size=None), "batch sizes differ (baseline 2048; arm none)"),
        (protocol(search_trials=20), "search trials differ (baseline 0; arm 20)"),
        (protocol(users=("a", "c")), "users differ (2 scored in one arm only)"),
    ],
)
def test_what_must_be_equal(arm, reason):
    assert obstacle(arm, protocol()) == reason


def test_budgets_must_be_equal_seed_by_seed():
    uneven = Protocol((1, 2), np.array(["a", "b"]), (TERMS, replace(TERMS, epochs_budget=90)))
    assert obstacle(uneven, protocol()) == "epoch budgets differ (baseline 60; arm 60, 90)"


def test_a_single_user_is_not_enough():
    assert obstacle(protocol(users=("a",)), protocol(users=("a",))) == (
        "fewer than 2 users were scored"
    )


def test_the_other_side_is_named_and_batches_bind_one_model_only():
    other = protocol(batch_size=None)
    assert obstacle(protocol(), other, "EASE", ignoring=(BATCH_SIZE,)) is None
    assert obstacle(protocol(seeds=(3,)), other, "EASE") == "seeds differ (EASE 1, 2; arm 3)"


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
