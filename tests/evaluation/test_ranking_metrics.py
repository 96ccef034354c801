import math
from time import perf_counter

import numpy as np
import pytest
import torch

from models.config import RANKING_METRICS, Evaluation, RankingMetric, parse_metric
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics

ALL = Evaluation().metrics
NUMPY_1_NAMES = {"float": float, "int": int, "float_": np.float64}


def test_values_worked_by_hand():
    # One user, 3 relevant items, found at ranks 2 and 4 of 5.
    hits = np.array([[False, True, False, True, False]])
    values = ranking_metrics(hits, np.array([3]), ALL, (1, 3, 5))

    found = {key: value[0] for key, value in values.items()}
    ideal_3 = 1 + 1 / math.log2(3) + 1 / 2
    assert found == pytest.approx(
        {
            ("ndcg", 1): 0.0,
            ("ndcg", 3): (1 / math.log2(3)) / ideal_3,
            ("ndcg", 5): (1 / math.log2(3) + 1 / math.log2(5)) / ideal_3,
            ("recall", 1): 0.0,
            ("recall", 3): 1 / 3,
            ("recall", 5): 2 / 3,
            ("hit", 1): 0.0,
            ("hit", 3): 1.0,
            ("hit", 5): 1.0,
            ("precision", 1): 0.0,
            ("precision", 3): 1 / 3,
            ("precision", 5): 2 / 5,
            ("mrr", 1): 0.0,
            ("mrr", 3): 1 / 2,
            ("mrr", 5): 1 / 2,
            ("map", 1): 0.0,
            ("map", 3): (1 / 2) / 3,
            ("map", 5): (1 / 2 + 2 / 4) / 3,
        }
    )


def test_normalisation_is_truncated_at_k():
    # 4 relevant items, both of the 2 shown are hits: a perfect list at 2.
    values = ranking_metrics(
        np.array([[True, True]]), np.array([4]), ("ndcg", "map", "recall"), [2]
    )
    assert values[("ndcg", 2)][0] == pytest.approx(1.0)
    assert values[("map", 2)][0] == pytest.approx(1.0)
    assert values[("recall", 2)][0] == pytest.approx(0.5)


def test_a_user_without_a_hit_scores_zero_everywhere():
    values = ranking_metrics(np.zeros((1, 10), dtype=bool), np.array([2]), ALL, (5, 10))
    assert all(value.tolist() == [0.0] for value in values.values())


def test_held_out_pairs_are_found_in_rankings():
    users = np.array([7, 2, 7, 2, 9, 2])
    items = np.array([0, 3, 4, 1, 4, 3])  # (2, 3) stands twice
    held_out = HeldOut(users, items, n_items=5)

    assert held_out.users.tolist() == [2, 7, 9]
    assert held_out.n_relevant.tolist() == [2, 2, 1]
    ranked = np.array([[3, 0, 1], [4, 2, -1], [0, 1, -1]])
    assert held_out.hits(ranked).tolist() == [
        [True, False, True],
        [True, False, False],
        # -1 must not reach back to item 4 of user 8, nor forward to anyone.
        [False, False, False],
    ]


def test_a_short_ranking_does_not_borrow_the_previous_users_item():
    held_out = HeldOut(np.array([0, 1]), np.array([4, 0]), n_items=5)
    assert not held_out.hits(np.array([[0], [-1]])).any()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at 20 need rankings of that length, not 10"):
        ranking_metrics(np.zeros((1, 10), dtype=bool), np.array([1]), ("ndcg",), (20,))
    with pytest.raises(ValueError, match="without relevant items"):
        ranking_metrics(np.zeros((2, 10), dtype=bool), np.array([1, 0]), ("ndcg",), (5,))


def test_agrees_with_recbole(monkeypatch):
    """RecBole's evaluator on the same random scores, among them users with few and many items."""
    for name, value in NUMPY_1_NAMES.items():
        monkeypatch.setattr(np, name, value, raising=False)
    from recbole.evaluator import DataStruct, Evaluator

    ks, n_users, n_items = (1, 5, 10, 20), 300, 120
    generator = np.random.default_rng(3)
    scores = torch.from_numpy(generator.standard_normal((n_users, n_items)))
    relevant = torch.from_numpy(
        generator.random((n_users, n_items)) < generator.uniform(0.002, 0.4, (n_users, 1))
    )
    relevant[:, 0] = True
    ranked = scores.topk(max(ks)).indices

    topk = torch.cat([relevant.gather(1, ranked), relevant.sum(1, keepdim=True)], dim=1)
    data = DataStruct()
    data.set("rec.topk", topk)
    names = ["ndcg", "recall", "hit", "precision", "mrr", "map"]
    config = {"metrics": names, "topk": list(ks), "metric_decimal_place": 10}
    expected = Evaluator(config).evaluate(data)

    users, items = relevant.numpy().nonzero()
    held_out = HeldOut(users, items, n_items)
    values = ranking_metrics(held_out.hits(ranked.numpy()), held_out.n_relevant, ALL, ks)
    assert {f"{metric}@{k}": v.mean() for (metric, k), v in values.items()} == pytest.approx(
        dict(expected), abs=1e-6, rel=0
    )
    assert len(expected) == len(names) * len(ks)


def test_agrees_with_trec_eval():
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    rng = np.random.default_rng(0)
    ranked = np.array([rng.permutation(40)[:20] for _ in range(60)])
    held = [set(rng.permutation(40)[: rng.integers(1, 6)].tolist()) for _ in range(60)]
    hits = np.array([[item in own for item in row] for row, own in zip(ranked, held, strict=True)])
    ours = ranking_metrics(hits, np.array([len(own) for own in held]), ALL, (5, 20))
    judged = {str(user): dict.fromkeys(map(str, own), 1) for user, own in enumerate(held)}
    run = {
        str(user): {str(item): 20.0 - rank for rank, item in enumerate(row)}
        for user, row in enumerate(ranked)
    }
    names = {"ndcg": nDCG, "recall": R, "hit": Success, "precision": P, "mrr": RR, "map": AP}
    theirs = {names[metric] @ k: values for (metric, k), values in ours.items()}
    for value in ir_measures.iter_calc(list(theirs), judged, run):
        assert value.value == pytest.approx(theirs[value.measure][int(value.query_id)])


def test_fast_enough_for_every_epoch():
    generator = np.random.default_rng(0)
    held_out = HeldOut(
        generator.integers(943, size=10_000), generator.integers(1682, size=10_000), 1682
    )
    ranked = generator.integers(1682, size=(len(held_out.users), 20))

    def validation():
        began = perf_counter()
        ranking_metrics(held_out.hits(ranked), held_out.n_relevant, ("ndcg",), (10,))
        return perf_counter() - began

    assert min(validation() for _ in range(20)) < 0.02


def test_a_metric_is_one_row(monkeypatch):
    last = RankingMetric("Last hit", lambda hits, _: hits[:, -1].astype(float))
    monkeypatch.setitem(RANKING_METRICS, "last", last)
    assert parse_metric("last@2") == ("last", 2)
    hits = np.array([[False, True], [True, False]])
    found = ranking_metrics(hits, np.array([1, 1]), ["last"], [1, 2])
    assert {key: values.tolist() for key, values in found.items()} == {
        ("last", 1): [0.0, 1.0],
        ("last", 2): [1.0, 0.0],
    }
