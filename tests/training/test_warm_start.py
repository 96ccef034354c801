"""A training that starts from another's weights: rows by raw id, everything else by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.errors import BadInput
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.training.warm_start import rows_of, start_from
from tests.support.toy_recommender import (
    ITEMS,
    SMALL_MODELS,
    UNIVERSE,
    USERS,
    interactions,
    recommender,
    typical_models,
)


def later(model: str, **hyperparameters) -> Recommender:
    """The world a day later: u0 is gone, u40, u41, i30 and a year are new, all in another order."""
    users, items = interactions()[0]
    pairs = [(u, i) for u, i in zip(users, items, strict=True) if u != "u0"]
    pairs += [("u40", "i30"), ("u40", "i1"), ("u41", "i2")]
    order = np.random.default_rng(7).permutation(len(pairs))
    log = Log([pairs[n][0] for n in order], [pairs[n][1] for n in order])
    universe = replace(
        UNIVERSE,
        users=["u41", "u40", *USERS[:0:-1]],
        items=["i30", *ITEMS[::-1]],
        of_items={
            name: [new, *UNIVERSE.of_items[name][::-1]]
            for name, new in (("year", "2026"), ("genres", ["new"]))
        },
    )
    settings = {"train_batch_size": 64, **SMALL_MODELS.get(model, {}), **hyperparameters}
    return Recommender(model, settings, log, universe, seed=2)


def champion(model: str) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Weights as no initialisation would make them, and whose rows they are."""
    built = recommender(model)
    weights = built.weights()
    for number, value in enumerate(weights.values()):
        if value.is_floating_point():
            value.copy_(
                torch.linspace(0.0001, 0.01, value.numel()).view(value.shape) + 0.001 * number
            )
    built.restore(weights)  # tied tensors get one value
    return built.weights(), rows_of(built)


def test_rows_follow_their_users_and_items():
    weights, rows = champion("BPR")
    warm, cold = later("BPR"), later("BPR").weights()
    start_from(warm, weights, rows)
    found = warm.weights()
    old = dict(zip(rows["user_id"], weights["user_embedding.weight"], strict=True))
    for user in USERS[1:]:
        row = found["user_embedding.weight"][warm.user_ids([user])[0]]
        assert torch.equal(row, old[user]), user
    for token, name, ids in (("u40", "user", warm.user_ids), ("i30", "item", warm.item_ids)):
        place = ids([token])[0]
        key = f"{name}_embedding.weight"
        assert torch.equal(found[key][place], cold[key][place])
    assert rows["item_id"] != rows_of(warm)["item_id"]
    place = warm.item_ids(["i3"])[0]
    expected = weights["item_embedding.weight"][rows["item_id"].index("i3")]
    assert torch.equal(found["item_embedding.weight"][place], expected)


def test_fields_that_share_a_table_keep_to_themselves():
    weights, rows = champion("DeepFM")
    warm, cold = later("DeepFM"), later("DeepFM").weights()
    start_from(warm, weights, rows)
    key = "token_embedding_table.embedding.weight"
    found, offset = warm.weights()[key], 0
    seen = 0
    old_offsets = np.cumsum([0, len(rows["user_id"]), len(rows["item_id"])])
    for number, field in enumerate(("user_id", "item_id", "year")):
        for token in rows_of(warm)[field]:
            expected = cold[key][offset]
            if token in rows[field]:
                expected = weights[key][old_offsets[number] + rows[field].index(token)]
                seen += 1
            assert torch.equal(found[offset], expected), (field, token)
            offset += 1
    assert offset == len(found)
    assert seen == 1 + 39 + 1 + 30 + 1 + 3
    genres = "token_seq_embedding_table.0.weight"
    place = rows_of(warm)["genres"].index("war")
    assert torch.equal(warm.weights()[genres][place], weights[genres][rows["genres"].index("war")])


@typical_models
def test_every_model_takes_all_that_is_known_and_trains_on(model):
    weights, rows = champion(model)
    warm, fresh = later(model), later(model).weights()
    start_from(warm, weights, rows)
    moved = {name: value != fresh[name] for name, value in warm.weights().items()}
    for name, changed in moved.items():
        if fresh[name].is_floating_point():
            # At most two users, an item, a year and a genre of some axes are new.
            assert changed.float().mean() > 0.7, name
    warm.module.train()
    batch = next(iter(warm.batches()))
    assert warm.loss(batch).requires_grad


@pytest.mark.parametrize("model", ["BPR", "MultiVAE", "FM", "BERT4Rec", "DiffRec", "GCMC"])
def test_the_same_world_gives_the_same_weights(model):
    weights, rows = champion(model)
    again = recommender(model, seed=5)
    start_from(again, weights, rows)
    for name, value in again.weights().items():
        assert torch.equal(value, weights[name]), name


def test_what_does_not_fit_is_named():
    weights, rows = champion("BPR")
    with pytest.raises(BadInput, match=r"user_embedding.weight is \(41, 64\), .* \(42, 32\)"):
        start_from(later("BPR", embedding_size=32), weights, rows)
    with pytest.raises(BadInput, match=r"item_embedding.weight exists in the initial weights only"):
        start_from(later("NeuMF"), weights, rows)
    with pytest.raises(BadInput, match="tensor surplus exists in the initial weights only"):
        start_from(later("BPR"), {**weights, "surplus": torch.zeros(1)}, rows)
    with pytest.raises(BadInput, match="EASE is computed"):
        start_from(later("EASE"), {}, rows)
    short = {**rows, "user_id": [*rows["user_id"], "one too many"]}
    with pytest.raises(BadInput, match=r"tensor user_embedding.weight"):
        start_from(later("BPR"), weights, short)
