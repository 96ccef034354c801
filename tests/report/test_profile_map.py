import numpy as np
import pyarrow as pa
import pytest

from models.report import profile_map as of_models
from models.schemas import ITEMS
from tasks.report.profile_map_task import profile_map
from tasks.storage.artifacts import read_parquet
from tests.support import toy_report, toy_runs

CATALOGUE = pa.Table.from_pylist(
    [
        {"item_id": "a", "genres": ["Drama", "War"]},
        {"item_id": "b", "genres": ["War"]},
        {"item_id": "c", "genres": []},
        {"item_id": "d", "genres": None},
    ],
    schema=ITEMS,
)


def test_a_favourite_is_counted_in_the_training_part_and_ties_go_by_name():
    pairs = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "d"), ("u3", "c"), ("u4", "x")]
    users, items = zip(*pairs, strict=True)
    train = pa.table({"user_id": list(users), "item_id": list(items)})
    assert of_models.favourites(train, CATALOGUE) == {"u1": "War", "u2": "Drama"}
    assert of_models.first_genres(CATALOGUE) == {"a": "Drama", "b": "War"}


def test_without_genres_nobody_has_a_favourite():
    bare = pa.Table.from_pylist([{"item_id": "a"}], schema=ITEMS)
    train = pa.table({"user_id": ["u1"], "item_id": ["a"]})
    assert of_models.favourites(train, bare) == {}


def test_many_are_sampled_and_always_the_same():
    assert of_models.sample(3).tolist() == [0, 1, 2]
    drawn = of_models.sample(20_000)
    assert len(drawn) == len(set(drawn.tolist())) == of_models.MOST_POINTS
    assert np.array_equal(drawn, of_models.sample(20_000))
    assert np.all(np.diff(drawn) > 0)


def test_umap_keeps_groups_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    centres = np.eye(2, 16)[np.arange(120) % 2]
    vectors = (centres + 0.05 * rng.normal(size=(120, 16))).astype(np.float32)
    assert of_models.method(len(vectors)) == "umap"
    places = of_models.project(vectors)
    means = places[::2].mean(axis=0), places[1::2].mean(axis=0)
    spread = max(places[start::2].std(axis=0).max() for start in (0, 1))
    assert np.linalg.norm(means[0] - means[1]) > 3 * spread
    assert np.array_equal(places, of_models.project(vectors))


@pytest.mark.parametrize("vectors", [np.eye(2, 8), np.ones((9, 8)), np.arange(9.0)[:, None]])
def test_too_few_equal_or_narrow_vectors_have_no_map(vectors):
    assert of_models.project(vectors.astype(np.float32)) is None


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_the_stage_keeps_who_where_what_and_first_words():
    described, train = toy_report.described(), toy_runs.splits().train
    profiles, embeddings = described.profiled.profiles, described.embedded.embeddings
    mapped = profile_map.fn("users", embeddings, profiles, train, toy_report.catalogue())
    assert (mapped.method, mapped.total, mapped.points.rows) == ("pca", 12, 12)
    rows = {row["id"]: row for row in read_parquet(mapped.points).to_pylist()}
    assert list(rows) == toy_report.USERS
    assert rows["u1"]["genre"] == "War"  # i9 alone is in training
    assert rows["u3"]["genre"] is None
    assert rows["u7"]["text"] == toy_report.NASTY
    again = profile_map.fn("users", embeddings, profiles, train, toy_report.catalogue())
    assert again == mapped

    imported = profile_map.fn("users", embeddings, None, train, toy_report.catalogue())
    assert read_parquet(imported.points)["text"].null_count == 12


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_too_few_for_a_map_are_none():
    empty = toy_runs.embedded().embeddings
    assert (
        profile_map.fn("users", empty, None, toy_runs.splits().train, toy_report.catalogue())
        is None
    )
