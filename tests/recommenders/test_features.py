"""Features of items and users in context-aware models, and as a source of knowledge."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.embeddings.sources import metadata
from models.embeddings.text_batches import to_matrix
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.schemas import DESCRIBED, EMBEDDING, FEATURES, ITEM, USER
from models.training.warm_start import rows_of, start_from
from tests.support.toy_recommender import ITEMS, UNIVERSE, USERS, interactions, train, wrap

TASTES = [[f"likes: {number % 2}"] for number in range(len(USERS))]
MAKERS = [["maker: a", "maker: b"][: 1 + number % 2] for number in range(len(ITEMS))]
DESCRIBED_UNIVERSE = replace(
    UNIVERSE,
    of_items={**UNIVERSE.of_items, "item_features": MAKERS},
    of_users={"user_features": TASTES},
)


def built(model, universe=DESCRIBED_UNIVERSE, seed=1):
    settings = {"train_batch_size": 64, "learning_rate": 0.02}
    return Recommender(model, settings, Log(*interactions()[0]), universe, seed)


@pytest.mark.parametrize("model", ["DeepFM", "DCN", "FM"])
def test_features_reach_batches_scores_and_weights(model):
    described = built(model)
    batch = next(iter(described.batches()))
    places = described.tokens["user_features"]
    told = [places[int(word)] for word in batch["user_features"][:, 0]]
    users = [described.tokens["user_id"][int(user)] for user in batch["user_id"]]
    assert told == [f"likes: {int(user[1:]) % 2}" for user in users]
    assert batch["item_features"].shape == (len(users), 2)
    assert max(epoch.valid_score for epoch in train(described, wrap(described, None)).epochs) > 0.2
    with torch.no_grad():
        before = described.pairwise_scores(torch.arange(1, 4))
        described.user_features["user_features"][:] = 0
        assert not torch.equal(described.pairwise_scores(torch.arange(1, 4)), before)


def test_a_warm_start_follows_the_words():
    first = built("DeepFM")
    train(first, wrap(first, None), epochs=1)
    later = replace(DESCRIBED_UNIVERSE, of_users={"user_features": [["new"], *TASTES[1:]]})
    second = built("DeepFM", later, seed=2)
    start_from(second, first.weights(), rows_of(first))
    fields = list(map(str, first.module.token_seq_field_names))
    assert {*fields} == {"genres", "item_features", "user_features"}
    for number, field in enumerate(fields):
        name = f"token_seq_embedding_table.{number}.weight"
        known, now = rows_of(first)[field], rows_of(second)[field]
        for word in known:
            found = second.weights()[name][now.index(word)]
            assert torch.equal(found, first.weights()[name][known.index(word)]), (field, word)
    assert "new" in rows_of(second)["user_features"]


def table(key, ids, words):
    return pa.table([ids, words], schema=pa.schema([pa.field(key, pa.string()), DESCRIBED]))


def test_features_are_a_source_of_items_of_users_or_of_their_items():
    items = table(ITEM, ["i1", "i2", "i3"], [["a", "b"], ["a"], None])
    train_part = pa.table({USER: ["u1", "u1", "u2"], ITEM: ["i1", "i2", "i2"]})
    made = metadata("features", items, train_part, ITEM)
    assert made[ITEM].to_pylist() == ["i1", "i2"]
    assert to_matrix(made[EMBEDDING]).tolist() == [[1, 1], [1, 0]]
    pooled = metadata("features", items, train_part, USER)
    assert pooled[USER].to_pylist() == ["u1", "u2"]
    own = table(USER, ["u1", "u2"], [["x"], ["y"]])
    told = metadata("features", items, train_part, USER, own)
    assert np.array_equal(to_matrix(told[EMBEDDING]), np.eye(2))
    assert metadata("features", items.drop_columns(FEATURES), train_part, ITEM) is None
