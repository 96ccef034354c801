"""Users described by the profiles of what they chose."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from models.config import ItemProfiles
from models.embeddings import pooling
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, INTERACTIONS, ITEM
from tests.support.toy_project import states

pytest_plugins = ("tests.support.toy_project",)

VECTORS = np.array([[1, 0], [0, 1], [5, 5]], np.float32)
"""Of items a, b and c: their mean is (2, 2)."""


def train(*pairs: str) -> pa.Table:
    return pa.table(
        {
            "user_id": [pair[0] for pair in pairs],
            "item_id": [pair[1] for pair in pairs],
            "rating": [3.0] * len(pairs),
            "timestamp": list(range(len(pairs))),
        }
    ).cast(INTERACTIONS)


def means(table: pa.Table, shuffle: int | None = None) -> dict[str, list[float]]:
    embeddings = to_table(pa.array(["a", "b", "c"]), EMBEDDING, VECTORS, ITEM)
    made = pa.concat_tables(pooling.pooled(table, embeddings, shuffle))
    return dict(zip(made["user_id"].to_pylist(), to_matrix(made[EMBEDDING]).tolist(), strict=True))


def test_a_user_is_the_mean_of_the_centred_vectors_of_the_items_chosen():
    assert means(train("ya", "yb", "xc")) == {"x": [3.0, 3.0], "y": [-1.5, -1.5]}


def test_items_without_a_vector_do_not_count_and_users_of_only_such_items_are_left_out():
    assert means(train("xc", "xd", "zd")) == {"x": [3.0, 3.0]}


def test_no_item_with_a_vector_is_an_error_that_says_where_vectors_come_from():
    with pytest.raises(BadInput, match="item_profiles or item_embeddings"):
        means(train("xd"))


def test_batches_of_users_make_no_difference(monkeypatch):
    table = train("ya", "yb", "xc", "wa", "wc", "vb")
    whole = means(table)
    monkeypatch.setattr(pooling, "_USERS_AT_ONCE", 2)
    assert means(table) == whole


def test_shuffled_items_have_the_same_vectors_but_not_their_own():
    alone = train("xa", "yb", "zc")
    own, shuffled = means(alone), means(alone, shuffle=2)
    assert sorted(own.values()) == sorted(shuffled.values())
    assert own != shuffled
    assert shuffled == means(alone, shuffle=2)


def test_items_cannot_be_described_by_items():
    with pytest.raises(ValidationError, match="provider items is for users"):
        ItemProfiles(provider="items")


BY_ITEMS = ("--set", "profiles.provider=items")
ARMS = ("--set", "training.arms=[baseline, transfer, shuffled-items]")


def test_a_run_describes_users_by_their_items_and_a_control_by_other_items(world):
    world.config.write_text(
        world.config.read_text().replace(
            "  MultiVAE: {hyperparameters: {latent_dimension: 16, train_batch_size: 16}}\n", ""
        )
    )
    summary = world.run(*BY_ITEMS, *ARMS)
    assert {row["arm"] for row in summary["comparison"]} == {"transfer", "shuffled-items"}
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        known = connection.sql("SELECT DISTINCT arm, profile_source, profile_provenance FROM runs")
        assert set(known.fetchall()) == {
            ("baseline", None, None),
            ("transfer", "offline (items)", "train-only"),
            ("shuffled-items", "offline (items)", "train-only"),
        }
    assert {"pooling", "profiles"} <= {stage["name"] for stage in summary["stages"]}
    assert set(states(world.run(*BY_ITEMS, *ARMS)).values()) == {"cached"}


def test_the_control_needs_users_who_are_described_by_items(world):
    assert "Set profiles.provider to items" in world.refused(*ARMS)


def test_users_without_texts_cannot_be_shown(world):
    done = world.llmkt("profiles", "show", str(world.config), "u1", *BY_ITEMS)
    assert done.returncode == 2
    assert "users are described by their items" in " ".join(done.stderr.split())
