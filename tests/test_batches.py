"""Batches: RecBole's layout, every positive once, no false negatives; and full ranking."""

import numpy as np
import pytest
import torch
from worlds import N_ITEMS, N_USERS, recommender

from models.batches import Batches, Fields, Sampling
from models.errors import BadInput
from models.ranking import Seen, rank

FIELDS = Fields("user", "item", "neg_item", "label")


def batches(users, items, loader="pairwise", batch_size=8, n_items=7, seed=0, **sampling):
    return Batches(
        torch.tensor(users),
        torch.tensor(items),
        n_users=max(users) + 1,
        n_items=n_items,
        loader=loader,
        batch_size=batch_size,
        sampling=Sampling(**sampling),
        fields=FIELDS,
        generator=torch.Generator().manual_seed(seed),
    )


USERS = [1, 1, 1, 2, 2, 3, 3, 3, 3, 3]
ITEMS = [1, 2, 6, 4, 5, 1, 2, 3, 4, 5]
PAIRS = set(zip(USERS, ITEMS, strict=True))


@pytest.mark.parametrize("popularity", [None, 1.0])
def test_pairwise_has_every_positive_once_and_no_false_negative(popularity):
    source = batches(USERS, ITEMS, per_positive=2, popularity=popularity)
    for _ in range(20):
        epoch = list(source)
        assert len(epoch) == len(source) == 3  # 4 positives, twice repeated, fill 8 rows
        positives = []
        for batch in epoch:
            half = len(batch["user"]) // 2
            assert torch.equal(batch["user"][:half], batch["user"][half:])
            assert torch.equal(batch["item"][:half], batch["item"][half:])
            for name in ("item", "neg_item"):
                assert batch[name].min() >= 1
            negatives = set(zip(batch["user"].tolist(), batch["neg_item"].tolist(), strict=True))
            assert not negatives & PAIRS
            positives += list(
                zip(batch["user"][:half].tolist(), batch["item"][:half].tolist(), strict=True)
            )
        assert sorted(positives) == sorted(PAIRS)


def test_pointwise_labels_tell_positives_from_negatives():
    for batch in batches(USERS, ITEMS, loader="pointwise", per_positive=1):
        rows = zip(batch["user"].tolist(), batch["item"].tolist(), strict=True)
        assert [float(row in PAIRS) for row in rows] == batch["label"].tolist()


def test_users_come_whole_and_once():
    seen = torch.cat([batch["user"] for batch in batches(USERS, ITEMS, "users", batch_size=2)])
    assert sorted(seen.tolist()) == [1, 2, 3]


def test_negatives_are_uniform_over_what_is_left():
    source = batches([1] * 2, [1, 2], batch_size=2)
    drawn = torch.cat([batch["neg_item"] for _ in range(3000) for batch in source])
    counts = torch.bincount(drawn, minlength=7)[3:].float()
    assert counts.sum() == 6000
    assert (counts / 1500 - 1).abs().max() < 0.1


def test_epochs_differ_and_seeds_repeat():
    first, second = batches(USERS, ITEMS), batches(USERS, ITEMS)
    one, two = [b["user"].tolist() for b in first], [b["user"].tolist() for b in first]
    assert one != two
    assert one == [b["user"].tolist() for b in second]


def test_a_user_with_everything_is_refused():
    with pytest.raises(BadInput, match="all 6 items that negative sampling draws from"):
        batches([1] * 6, [1, 2, 3, 4, 5, 6])
    with pytest.raises(BadInput, match="all 2 items"):
        batches([1, 1], [1, 2], popularity=1.0)  # the others are never drawn


def test_dynamic_negatives_are_refused():
    with pytest.raises(BadInput, match="dynamic"):
        Sampling.from_recbole({"dynamic": True})


class Fixed:
    """Scores that are known beforehand."""

    def __init__(self, scores):
        self.module = torch.nn.Identity()
        self.n_items = scores.shape[1]
        self.device = torch.device("cpu")
        self._scores = scores

    def scores(self, users):
        return self._scores[users]


def test_rank_excludes_seen_items_and_padding(monkeypatch):
    monkeypatch.setattr("models.ranking._SCORES_AT_ONCE", 12)  # two users at a time
    scores = torch.tensor(
        [[9.0] * 5, [9, 1, 2, 3, 4], [9, 4, 3, 2, 1], [9, 1, 4, 2, 3]], dtype=torch.float32
    )
    seen = Seen(np.array([3, 1, 1]), np.array([2, 4, 3]), n_users=4)
    recommender = Fixed(scores)
    recommender.module.train()
    items, values = rank(recommender, np.array([1, 2, 3]), seen, k=3)
    assert items[1].tolist() == [1, 2, 3]
    assert items[2].tolist() == [4, 3, 1]
    assert items[0, :2].tolist() == [2, 1]
    assert np.isneginf(values[0, 2])
    assert recommender.module.training


def test_rank_agrees_with_a_plain_loop():
    built = recommender("BPR")
    seen = Seen(built.train_users, built.train_items, built.n_users)
    users = np.unique(built.train_users)
    items, _ = rank(built, users, seen, k=5)
    built.module.eval()
    for user, ranked in zip(users, items, strict=True):
        scores = built.scores(torch.tensor([user]))[0].detach().numpy().copy()
        scores[0] = -np.inf
        scores[built.train_items[built.train_users == user]] = -np.inf
        assert ranked.tolist() == np.argsort(-scores, kind="stable")[:5].tolist()
    assert len(users) == N_USERS
    assert built.n_items == N_ITEMS + 1
