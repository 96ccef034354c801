"""What lists are like, worked by hand."""

import math

import numpy as np
import pyarrow as pa
import pytest

from models.evaluation import beyond_accuracy, user_scores
from models.evaluation.beyond_accuracy import Catalogue
from models.schemas import GENRES, ITEM, USER

LOG = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 4)]
TRAIN = pa.table({USER: [f"u{u}" for u, _ in LOG], ITEM: [f"i{i}" for _, i in LOG]})
OF = [["War"], ["War", "Drama"], ["Drama"], [], ["Drama"]]


def catalogue(genres=OF) -> Catalogue:
    lists = pa.array(genres, pa.list_(pa.string()))
    return Catalogue.of(pa.table({ITEM: [f"i{n + 1}" for n in range(5)], GENRES: lists}), TRAIN)


def rankings(**lists):
    columns = [["test"] * len(lists), [*lists], pa.array(lists.values(), pa.list_(pa.string()))]
    return pa.table(columns, ["split", USER, "items"])


RANKED = rankings(u1=["i1", "i3"], u2=["i2", "i5"], u3=["i1"], u4=[])


def described(made: Catalogue, ranked: pa.Table, k: int) -> dict[str, float]:
    return {name: value for (name, _), value in made.of_lists(ranked, "test", [k]).items()}


@pytest.fixture(params=[1, 2])
def k(request):
    return request.param


def test_surprises_are_bits_and_an_item_that_nobody_has_counts_as_if_one_had():
    assert catalogue().holders.tolist() == [4, 3, 1, 1, 0]
    assert catalogue().surprises == pytest.approx([0.0, math.log2(4 / 3), 2.0, 2.0, 2.0])


def test_coverage_novelty_and_popularity(k):
    found = described(catalogue(), RANKED, k)
    bits = math.log2(4 / 3)
    expected = {
        1: (2 / 5, bits / 3, (4 + 3 + 4) / 3),  # u1 and u3 i1, u2 i2
        2: (4 / 5, (2 / 2 + (bits + 2) / 2 + 0) / 3, (5 / 2 + 3 / 2 + 4) / 3),
    }[k]
    assert [found[name] for name in ("coverage", "novelty", "popularity")] == pytest.approx(
        expected
    )


def test_gini_is_that_of_pairs_of_items(k):
    shown = np.array({1: [2, 1, 0, 0, 0], 2: [2, 1, 1, 0, 1]}[k])
    differences = np.abs(np.subtract.outer(shown, shown)).sum() / (2 * 5 * shown.sum())
    assert described(catalogue(), RANKED, k)["gini"] == pytest.approx(differences)
    alike = rankings(u1=[f"i{n}" for n in range(1, 6)])
    assert described(catalogue(), alike, 5)["gini"] == 0


def test_diversity_is_the_mean_distance_of_genres():
    # u1: War and Drama, cosine 0. u2: half and half against Drama, cosine √½. u3 has one item.
    found = described(catalogue(), RANKED, 2)["diversity"]
    assert found == pytest.approx((1 + 1 - math.sqrt(0.5)) / 2)
    # i4 has no genres: what it is like is not known, and it counts in no pair.
    with_unknown = rankings(u1=["i1", "i4", "i3"])
    assert described(catalogue(), with_unknown, 3)["diversity"] == 1


def test_calibration_is_the_divergence_from_the_history():
    # u3 has i1 (War) and i2 (both): 3/4 War, 1/4 Drama; its list is i1: War alone.
    mixed = 0.99 * 1 + 0.01 * 0.75, 0.01 * 0.25
    expected = 0.75 * math.log(0.75 / mixed[0]) + 0.25 * math.log(0.25 / mixed[1])
    alone = rankings(u3=["i1"], stranger=["i1"])  # who has no history counts for nothing
    assert described(catalogue(), alone, 1)["calibration"] == pytest.approx(expected)
    same = rankings(u3=["i1", "i2"])
    assert described(catalogue(), same, 2)["calibration"] == pytest.approx(0)


def test_without_genres_there_is_no_diversity():
    found = described(catalogue([[]] * 5), RANKED, 2)
    assert found.keys() == {"coverage", "novelty", "gini", "popularity"}


def test_blocks_of_lists_give_what_all_lists_give_at_once(k, monkeypatch):
    whole = described(catalogue(), RANKED, k)
    monkeypatch.setattr(user_scores, "_LISTS_AT_ONCE", 1)
    assert described(catalogue(), RANKED, k) == pytest.approx(whole)
    assert len(whole) == len(beyond_accuracy.BEYOND)
