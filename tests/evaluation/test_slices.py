import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from models.config import Evaluation
from models.evaluation import user_scores
from models.evaluation.slices import (
    Slice,
    sliced,
    sliced_clicks,
    slicing,
)
from models.evaluation.user_scores import score
from models.schemas import PREDICTIONS
from tests.support.toy_world import train

# u1 has 1 training item, u2 two, u3 and u4 three; i1 is held by 4, i2 by 3, i3 and i4 by 1 each.
TRAIN = train(
    *[(user, "i1") for user in ("u1", "u2", "u3", "u4")],
    *[(user, "i2") for user in ("u2", "u3", "u4")],
    *[("u3", "i3"), ("u4", "i4")],
)
ITEMS = pa.array(["i1", "i2", "i3", "i4", "i5"])
CONFIG = Evaluation(metrics=("recall",), k=(1, 2), primary="recall@2")
HELD = train(("u1", "i2"), ("u1", "i5"), ("u2", "i3"), ("u3", "i5"))


def rankings(**lists) -> pa.Table:
    return pa.table(
        {"split": ["test"] * len(lists), "user_id": list(lists), "items": list(lists.values())}
    )


RANKED = rankings(u1=["i2", "i3"], u2=["i4", "i3"], u3=["i4", "i5"], u4=["i3"])


def found(profiled=None, ranked=RANKED):
    values = score(ranked, HELD, "test", CONFIG)
    parts = slicing(TRAIN, ITEMS, profiled)
    return {
        (part.kind, part.name): (users.users.tolist(), users.values["recall", 2].tolist())
        for part, users in sliced(values, ranked, HELD, parts, CONFIG).items()
    }


def test_users_by_length_of_history():
    # Counts 1 2 3 3: the quartiles are 1.75, 2.5 and 3, so that both 3 fall into the third.
    parts = slicing(TRAIN, ITEMS, None)
    assert {part: ids.to_pylist() for part, ids in parts["user_id"].items()} == {
        Slice("history", "1 coldest", 1, 1): ["u1"],
        Slice("history", "2", 2, 2): ["u2"],
        Slice("history", "3", 3, 3): ["u3", "u4"],
    }
    # u1 finds one of its two items, u2 and u3 theirs; u4 holds nothing out.
    assert found()["history", "1 coldest"] == (["u1"], [0.5])
    assert found()["history", "2"] == (["u2"], [1.0])
    assert found()["history", "3"] == (["u3"], [1.0])


def test_held_out_items_of_head_and_tail():
    # Of 9 interactions the head must hold 7.2: i1 and i2 have 7, so i3 (4 3 1) belongs to it.
    parts = slicing(TRAIN, ITEMS, None)
    assert {part: sorted(ids.to_pylist()) for part, ids in parts["item_id"].items()} == {
        Slice("popularity", "head", 1, 4): ["i1", "i2", "i3"],
        Slice("popularity", "tail", 0, 1): ["i4", "i5"],
    }
    # In the head u1 has i2, found at rank 1, and u2 i3, found at rank 2; in the tail u1 has i5,
    # not found, and u3 i5, found.
    assert found()["popularity", "head"] == (["u1", "u2"], [1.0, 1.0])
    assert found()["popularity", "tail"] == (["u1", "u3"], [0.0, 1.0])


def test_users_with_and_without_a_profile():
    profiles = found(pa.array(["u1", "u3", "u9"]))
    assert profiles["profile", "with"] == (["u1", "u3"], [0.5, 1.0])
    assert profiles["profile", "without"] == (["u2"], [1.0])
    assert ("profile", "with") not in found()
    everyone = found(pa.array(["u1", "u2", "u3", "u4"]))
    assert ("profile", "without") not in everyone


def test_predicted_likes_within_slices():
    """Pairs of other slices do not count: u1's item of the tail is told apart from nothing."""
    pairs = [
        ("u1", "i1", True, 0.9),
        ("u1", "i2", False, 0.2),  # u1 alone: told apart
        ("u2", "i1", True, 0.3),
        ("u2", "i2", False, 0.4),  # u2 alone: the wrong way round
        ("u3", "i4", True, 0.8),
        ("u4", "i5", True, 0.1),  # nothing but likes
    ]
    columns = [list(column) for column in zip(*pairs, strict=True)]
    config = Evaluation(like_from=4, metrics=("auc", "logloss"), primary="auc")
    found = {
        (part.kind, part.name): users
        for part, users in sliced_clicks(
            pa.table(columns, schema=PREDICTIONS),
            slicing(TRAIN, ITEMS, pa.array(["u1", "u2"])),
            config,
        ).items()
    }
    # In the head three of four pairs of a like and a dislike are in order; the tail has likes only,
    # like users 3 and 4, who are also those without a profile.
    assert {key: float(users.values["auc", None].mean()) for key, users in found.items()} == {
        ("history", "1 coldest"): pytest.approx(1.0),
        ("history", "2"): pytest.approx(0.0),
        ("profile", "with"): pytest.approx(0.75),
        ("popularity", "head"): pytest.approx(0.75),
    }
    coldest = found["history", "1 coldest"]
    assert coldest.users.tolist() == ["u1"]
    expected = -(math.log(0.9) + math.log(0.8)) / 2
    assert coldest.values["logloss", None].tolist() == [pytest.approx(expected)]


def test_slices_of_users_make_up_the_whole():
    generator = np.random.default_rng(4)
    log = train(*{(f"u{u}", f"i{i}") for u, i in generator.integers(30, size=(300, 2))})
    held = train(*{(f"u{u}", f"i{i + 30}") for u, i in generator.integers(30, size=(100, 2))})
    items = pa.array([f"i{i}" for i in range(60)])
    ranked = rankings(
        **{f"u{u}": [f"i{i}" for i in generator.permutation(60)[:5]] for u in range(30)}
    )
    values = score(ranked, held, "test", CONFIG)
    parts = sliced(values, ranked, held, slicing(log, items, items), CONFIG)
    history = [users for part, users in parts.items() if part.kind == "history"]
    assert sorted(np.concatenate([users.users for users in history])) == values.users.tolist()
    total = sum(users.values["recall", 2].sum() for users in history)
    assert total == pytest.approx(values.values["recall", 2].sum())
    bounds = [(part.low, part.high) for part in parts if part.kind == "history"]
    assert bounds == sorted(bounds)
    assert all(high < low for (_, high), (low, _) in pairwise(bounds))


def test_lists_are_scored_in_blocks_as_all_at_once(monkeypatch):
    whole = score(RANKED, HELD, "test", CONFIG)
    monkeypatch.setattr(user_scores, "_LISTS_AT_ONCE", 2)
    shuffled = RANKED.take([2, 0, 3, 1])  # rankings need not be in the order of users
    blocks = score(shuffled, HELD, "test", CONFIG)
    assert blocks.users.tolist() == whole.users.tolist() == ["u1", "u2", "u3"]
    for column, values in whole.values.items():
        assert blocks.values[column].tolist() == values.tolist()
    assert whole.values["recall", 2].tolist() == [0.5, 1.0, 1.0]
    with pytest.raises(KeyError):
        whole.values["recall", 3]
