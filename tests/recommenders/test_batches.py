"""Batches: RecBole's layout, every positive once, no false negatives; and full ranking."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.errors import BadInput
from models.recommenders.batches import (
    Negatives,
    Pairs,
    labelled_batches,
    pair_batches,
    user_batches,
)
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.recommenders.sequence_batches import (
    MASKED,
    Masking,
    Sequences,
    masked_batches,
    sequence_batches,
)
from models.recommenders.tap_probe import TOY_LOG, TOY_UNIVERSE
from models.recommenders.top_k import Seen, rank
from models.training.validation import Holdout
from tests.support.toy_recommender import N_ITEMS, N_USERS, recommender


def batches(users, items, loader="pairwise", batch_size=8, n_items=7, seed=0, **sampling):
    generator = torch.Generator().manual_seed(seed)
    pairs = Pairs(torch.tensor(users), torch.tensor(items), max(users) + 1, n_items)
    if loader == "users":
        return user_batches(pairs, batch_size, generator)
    negatives = Negatives(pairs, sampling, generator)
    return pair_batches(pairs, negatives, batch_size, loader == "pointwise", generator)


USERS = [1, 1, 1, 2, 2, 3, 3, 3, 3, 3]
ITEMS = [1, 2, 6, 4, 5, 1, 2, 3, 4, 5]
PAIRS = set(zip(USERS, ITEMS, strict=True))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_pairwise_has_every_positive_once_and_no_false_negative(distribution):
    source = batches(USERS, ITEMS, sample_num=2, distribution=distribution)
    for _ in range(20):
        epoch = list(source)
        assert len(epoch) == len(source) == 3  # 4 positives, twice repeated, fill 8 rows
        positives = []
        for batch in epoch:
            half = len(batch["user_id"]) // 2
            assert torch.equal(batch["user_id"][:half], batch["user_id"][half:])
            assert torch.equal(batch["item_id"][:half], batch["item_id"][half:])
            for name in ("item_id", "neg_item_id"):
                assert batch[name].min() >= 1
            negatives = set(
                zip(batch["user_id"].tolist(), batch["neg_item_id"].tolist(), strict=True)
            )
            assert not negatives & PAIRS
            positives += list(
                zip(batch["user_id"][:half].tolist(), batch["item_id"][:half].tolist(), strict=True)
            )
        assert sorted(positives) == sorted(PAIRS)


def test_pointwise_labels_tell_positives_from_negatives():
    for batch in batches(USERS, ITEMS, loader="pointwise", sample_num=1):
        rows = zip(batch["user_id"].tolist(), batch["item_id"].tolist(), strict=True)
        assert [float(row in PAIRS) for row in rows] == batch["label"].tolist()


def test_users_come_whole_and_once():
    seen = torch.cat([batch["user_id"] for batch in batches(USERS, ITEMS, "users", batch_size=2)])
    assert sorted(seen.tolist()) == [1, 2, 3]


def test_labelled_batches_sample_nothing_and_join_features():
    year = torch.arange(7) * 10
    pairs = Pairs(torch.tensor(USERS), torch.tensor(ITEMS), 4, 7, {"year": year})
    labels = torch.tensor([float(item % 2) for item in ITEMS])
    source = labelled_batches(pairs, labels, 4, torch.Generator().manual_seed(0))
    epoch = list(source)
    assert len(epoch) == len(source) == 3
    rows = [
        row
        for batch in epoch
        for row in zip(*(batch[c].tolist() for c in ("user_id", "item_id")), strict=True)
    ]
    assert sorted(rows) == sorted(PAIRS)
    for batch in epoch:
        assert torch.equal(batch["year"], batch["item_id"] * 10)
        assert torch.equal(batch["label"], (batch["item_id"] % 2).float())


def histories(longest=3):
    """User 1 has items 1, 2, 6 and user 3 has 1 to 5, in this order; user 2 has 4, 5."""
    return Sequences.from_pairs(np.array(USERS), np.array(ITEMS), 4, longest, torch.device("cpu"))


def test_sequences_are_each_prefix_with_its_next_item():
    source = sequence_batches(histories(), 3, torch.Generator().manual_seed(0), None)
    rows = {}
    for batch in source:
        columns = (batch["user_id"], batch["item_id"], batch["item_id_list"], batch["item_length"])
        for user, item, items, length in zip(*(c.tolist() for c in columns), strict=True):
            rows[user, item] = (items, length)
    assert rows == {
        (1, 2): ([1, 0, 0], 1),
        (1, 6): ([1, 2, 0], 2),
        (2, 5): ([4, 0, 0], 1),
        (3, 2): ([1, 0, 0], 1),
        (3, 3): ([1, 2, 0], 2),
        (3, 4): ([1, 2, 3], 3),
        (3, 5): ([2, 3, 4], 3),
    }


def test_the_latest_items_follow_an_extended_history():
    latest = histories().latest(torch.tensor([1, 3]))
    assert latest["item_id_list"].tolist() == [[1, 2, 6], [3, 4, 5]]
    later = histories().extended(np.array([3, 2]), np.array([6, 1]))
    latest = later.latest(torch.tensor([2, 3]))
    assert latest["item_id_list"].tolist() == [[4, 5, 1], [4, 5, 6]]
    assert latest["item_length"].tolist() == [3, 3]


@pytest.mark.parametrize("last_ratio", [0.0, 1.0])
def test_masked_windows_hide_items_and_say_which(last_ratio):
    generator = torch.Generator().manual_seed(0)
    pairs = Pairs(torch.tensor(USERS), torch.tensor(ITEMS), 4, 7)
    negatives = Negatives(pairs, {}, generator)
    masking = Masking(0.5, last_ratio, token=7, generator=generator)
    source = masked_batches(histories(), 2, negatives, masking)
    own = {1: [1, 2, 6], 2: [4, 5], 3: [1, 2, 3, 4, 5]}
    seen = set()
    for _ in range(20):
        for named in source:
            batch = {key: named[column] for key, column in MASKED.items()}
            for row, user in enumerate(named["user_id"].tolist()):
                shown = batch["MASK_ITEM_SEQ"][row].tolist()
                places, hidden = batch["MASK_INDEX"][row], batch["POS_ITEMS"][row]
                assert 7 in shown
                restored = list(shown)
                for place, item, negative in zip(
                    places.tolist(), hidden.tolist(), batch["NEG_ITEMS"][row].tolist(), strict=True
                ):
                    assert (user, negative) not in PAIRS
                    if item:
                        assert restored[place] == 7
                        restored[place] = item
                window = [item for item in restored if item]
                text, all_items = str(window)[1:-1], str(own[user])[1:-1]
                assert text in all_items
                seen.add((user, tuple(window)))
                if last_ratio:
                    assert shown.index(7) == len(window) - 1
    assert seen == {(1, (1, 2, 6)), (2, (4, 5)), (3, (3, 4, 5)), (3, (2, 3, 4)), (3, (1, 2, 3))}


def test_negatives_are_uniform_over_what_is_left():
    source = batches([1] * 2, [1, 2], batch_size=2)
    drawn = torch.cat([batch["neg_item_id"] for _ in range(3000) for batch in source])
    counts = torch.bincount(drawn, minlength=7)[3:].float()
    assert counts.sum() == 6000
    assert (counts / 1500 - 1).abs().max() < 0.1


@pytest.mark.parametrize("n_rows", range(1, 10))
def test_a_last_row_joins_the_batch_before_it_where_one_is_too_few(n_rows):
    pairs = Pairs(torch.arange(n_rows), torch.arange(n_rows), n_rows, n_rows)
    generator = torch.Generator().manual_seed(0)
    source = labelled_batches(pairs, torch.zeros(n_rows), 4, generator, least=2)
    epoch = [batch["user_id"].tolist() for batch in source]
    assert len(source) == len(epoch)
    assert sorted(row for batch in epoch for row in batch) == list(range(n_rows))
    assert min(map(len, epoch)) >= 2 or n_rows == 1
    assert max(map(len, epoch)) <= 5


@pytest.mark.parametrize("model", ["DCN", "DCNV2", "DSSM", "NFM"])
def test_models_that_normalize_over_a_batch_train_on_any_number_of_rows(model):
    def built(size):
        log = replace(TOY_LOG, labels=np.ones(len(TOY_LOG.users), np.float32))
        made = Recommender(model, {"train_batch_size": size}, log, TOY_UNIVERSE, seed=0)
        made.module.train()
        return made

    odd = built(11)  # 144 rows: one is left
    for batch in odd.batches():
        odd.loss(batch).backward()
    with pytest.raises(BadInput, match=rf"{model}\.hyperparameters\.train_batch_size: .*Raise it"):
        built(1).batches()


def test_epochs_differ_and_seeds_repeat():
    first, second = batches(USERS, ITEMS), batches(USERS, ITEMS)
    one, two = [b["user_id"].tolist() for b in first], [b["user_id"].tolist() for b in first]
    assert one != two
    assert one == [b["user_id"].tolist() for b in second]


def test_a_user_with_everything_is_refused():
    with pytest.raises(BadInput, match="all 6 items that negative sampling draws from"):
        batches([1] * 6, [1, 2, 3, 4, 5, 6])
    with pytest.raises(BadInput, match="all 2 items"):
        batches([1, 1], [1, 2], distribution="popularity")  # the others are never drawn


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
    monkeypatch.setattr("models.recommenders.top_k._SCORES_AT_ONCE", 12)  # two users at a time
    scores = torch.tensor(
        [[9.0] * 5, [9, 1, 2, 3, 4], [9, 4, 3, 2, 1], [9, 1, 4, 2, 3]], dtype=torch.float32
    )
    seen = Seen(np.array([3, 1, 1]), np.array([2, 4, 3]), n_users=4)
    recommender = Fixed(scores)
    recommender.module.train()
    [(items, values)] = rank(recommender, np.array([1, 2, 3]), [seen], k=3)
    assert items[1].tolist() == [1, 2, 3]
    assert items[2].tolist() == [4, 3, 1]
    assert items[0, :2].tolist() == [2, 1]
    assert np.isneginf(values[0, 2])
    assert not recommender.module.training
    barred = Seen(np.array([3, 1, 1]), np.array([2, 4, 3]), n_users=4, barred=np.array([0, 2]))
    [(items, values)] = rank(recommender, np.array([1, 2, 3]), [barred], k=3)
    left = [row[np.isfinite(score)].tolist() for row, score in zip(items, values, strict=True)]
    assert left == [[1], [1, 3, 4], [4, 3, 1]]


def test_rank_agrees_with_a_plain_loop():
    built = recommender("BPR")
    seen = Seen(built.train_users, built.train_items, built.n_users)
    users = np.unique(built.train_users)
    [(items, _)] = rank(built, users, [seen], k=5)
    built.module.eval()
    for user, ranked in zip(users, items, strict=True):
        scores = built.scores(torch.tensor([user]))[0].detach().numpy().copy()
        scores[0] = -np.inf
        scores[built.train_items[built.train_users == user]] = -np.inf
        assert ranked.tolist() == np.argsort(-scores, kind="stable")[:5].tolist()
    assert len(users) == N_USERS
    assert built.n_items == N_ITEMS + 1


def test_new_items_are_ranked_alone():
    """Items 1 and 2 have no training interaction; the user's own held-out item is one of them."""
    built = recommender("BPR")
    kept = ~np.isin(built.train_items, [1, 2])
    built.train_users, built.train_items = built.train_users[kept], built.train_items[kept]
    pairs = [built.tokens["user_id"][1]], [built.tokens["item_id"][2]]
    holdout = Holdout.from_pairs(built, pairs, "new")
    [(items, scores)] = rank(built, np.array([1]), [holdout.seen], k=3)
    assert sorted(items[0][np.isfinite(scores[0])]) == [1, 2]
    assert 0.6 < holdout.score(built, "ndcg", 3) <= 1


def test_one_scoring_ranks_for_both_splits():
    built = recommender("BPR")
    held_users, held_items = built.train_users[::7], built.train_items[::7] % N_ITEMS + 1
    seen = Seen(built.train_users, built.train_items, built.n_users)
    also = Seen(held_users, held_items, built.n_users)
    both = Seen(
        np.concatenate((built.train_users, held_users)),
        np.concatenate((built.train_items, held_items)),
        built.n_users,
    )
    users = np.unique(built.train_users)
    valid, test = rank(built, users, [seen, also], k=5)
    for ranked, alone in ((valid, seen), (test, both)):
        [expected] = rank(built, users, [alone], k=5)
        np.testing.assert_array_equal(ranked, expected)
    assert (valid[0] != test[0]).any()


def test_many_users_are_validated_on_by_a_sample():
    built = recommender("BPR")
    pairs = (
        built.tokens["user_id"][1:],
        built.tokens["item_id"][np.arange(1, built.n_users) % N_ITEMS + 1],
    )
    whole = Holdout.from_pairs(built, pairs)
    values = [
        Holdout.from_pairs(built, ([user], [item])).score(built, "ndcg", 5)
        for user, item in zip(*pairs, strict=True)
    ]
    assert whole.score(built, "ndcg", 5) == pytest.approx(np.mean(values))
    assert (whole.share, whole.standard_error(built, "ndcg", 5)) == (1, 0)
    sample = Holdout.from_pairs(built, pairs, most_users=7)
    assert sample.share == 7 / N_USERS
    drawn = [values[user - 1] for user in sample.held.users]
    assert len(drawn) == 7
    assert sample.score(built, "ndcg", 5) == pytest.approx(np.mean(drawn))
    error = np.std(drawn) * ((1 - 7 / N_USERS) / 7) ** 0.5
    assert sample.standard_error(built, "ndcg", 5) == pytest.approx(error)
    again = Holdout.from_pairs(recommender("MultiVAE"), pairs, most_users=7)
    assert again.held.users.tolist() == sample.held.users.tolist()
    # What a later split's rankings hide is not sampled.
    rows, _ = sample.also_held.cells(torch.arange(built.n_users))
    assert len(rows) == N_USERS


@pytest.mark.parametrize(
    "form", [list, pa.array, lambda words: pa.chunked_array([words[:2], words[2:]])]
)
def test_ids_count_from_one_as_they_appear_in_the_log(form):
    users, items = ["b", "a", "b", "c"], ["y", "y", "x", "x"]
    log, universe = Log(form(users), form(items)), Universe(form(list("dabc")), form(list("zxy")))
    encoded = Log(pa.chunked_array([users]).dictionary_encode(), form(items))
    for each in (log, encoded):
        built = Recommender("BPR", {}, each, universe, seed=1)
        assert built.tokens["user_id"].tolist() == ["[PAD]", "b", "a", "c", "d"]
        assert built.tokens["item_id"].tolist() == ["[PAD]", "y", "x", "z"]
        assert built.train_users.tolist() == [1, 2, 1, 3]
        assert built.train_items.tolist() == [1, 1, 2, 2]
        assert built.user_ids(form(["d", "none", "b"])).tolist() == [4, 0, 1]
