"""Several sources of knowledge in one vector: scales, weights, gaps, provenance."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from models.config import Targets
from models.embeddings.sources import METADATA, combined, metadata
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, GENRES, ITEM, USER, YEAR
from tasks.embeddings.outputs import Described, Embedded
from tasks.embeddings.sources_task import sources
from tasks.storage.artifacts import Handle, read_parquet, write_parquet
from tests.support.toy_runs import profiled

ITEMS = pa.table(
    {
        ITEM: ["i1", "i2", "i3", "i4", "unseen"],
        YEAR: pa.array([1950, 1990, None, 2000, 1800], pa.int32()),
        GENRES: pa.array(
            [["Drama"], ["War", "Drama"], ["War"], [], ["Opera"]], pa.list_(pa.string())
        ),
    }
)
TRAIN = pa.table({USER: ["a", "a", "b", "b", "b"], ITEM: ["i1", "i2", "i2", "i3", "i4"]})
SUBJECTS = pa.array(["i1", "i2", "i3", "i4"])


def block(ids, width, scale=1.0, offset=0.0, seed=0) -> pa.Table:
    vectors = np.random.default_rng(seed).normal(size=(len(ids), width)) * scale + offset
    return to_table(pa.array(ids), EMBEDDING, vectors.astype(np.float32), ITEM)


def test_each_source_is_centred_and_scaled_whatever_its_width_and_units():
    parts = {
        "profiles": block(["i4", "i1", "i2", "i3"], 50, scale=0.01, offset=3),
        "genres": block(["i2", "i3"], 2, scale=100, seed=1),
    }
    table = combined(parts, {"profiles": 1.0, "genres": 0.5}, SUBJECTS, ITEM)
    assert table[ITEM].to_pylist() == SUBJECTS.to_pylist()
    matrix = to_matrix(table[EMBEDDING]).astype(np.float64)
    assert matrix.shape == (4, 52)
    texts, genres = matrix[:, :50], matrix[:, 50:]
    np.testing.assert_allclose(texts.mean(axis=0), 0, atol=1e-5)
    assert (texts**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-3)
    assert (genres[[0, 3]] == 0).all(), "what lacks a source is at its mean"
    assert (genres[[1, 2]] ** 2).sum(axis=1).mean() == pytest.approx(0.25, rel=1e-5)
    given = to_matrix(parts["profiles"][EMBEDDING]).astype(np.float64)[[1, 2, 3, 0]]
    given -= given.mean(axis=0)
    np.testing.assert_allclose(texts / texts[0, 0], given / given[0, 0], rtol=1e-2)


def test_a_subject_without_any_source_has_no_row():
    table = combined({"profiles": block(["i1", "i3"], 4)}, {"profiles": 1.0}, SUBJECTS, ITEM)
    assert table[ITEM].to_pylist() == ["i1", "i3"]


def test_equal_vectors_are_refused():
    alike = to_table(SUBJECTS, EMBEDDING, np.ones((4, 3), np.float32), ITEM)
    with pytest.raises(BadInput, match=r"vectors of profiles are all equal.* Leave out profiles"):
        combined({"profiles": alike}, {"profiles": 1.0}, SUBJECTS, ITEM)


def test_genres_and_years_by_hand():
    genres = METADATA["genres"](ITEMS)
    assert genres.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    years = METADATA["years"](pa.table({YEAR: [1900, 1950, None, 2000, 1925]}))
    # Knots at the quantiles 0, .2, .4, .6, .8 and 1 of the four known years.
    knots = [1900, 1915, 1930, 1945, 1970, 2000]
    np.testing.assert_allclose(years.sum(axis=1), [1, 1, 0, 1, 1])
    np.testing.assert_allclose(years @ knots, [1900, 1950, 0, 2000, 1925])
    assert (years[1] > 0).sum() == 2, "1950 is between two knots"
    assert METADATA["years"](pa.table({YEAR: pa.nulls(3, pa.int32())})).shape == (3, 0)


def test_users_are_the_mean_of_their_training_items():
    items = metadata("genres", ITEMS, TRAIN, ITEM)
    assert items[ITEM].to_pylist() == ["i1", "i2", "i3", "unseen"], "all but the bare one"
    users = metadata("genres", ITEMS, TRAIN, USER)
    assert users[USER].to_pylist() == ["a", "b"]
    centred = to_matrix(items[EMBEDDING]) - to_matrix(items[EMBEDDING]).mean(axis=0)
    expected = [centred[:2].mean(axis=0), centred[1:3].mean(axis=0)]
    np.testing.assert_allclose(to_matrix(users[EMBEDDING]), expected, atol=1e-6)
    bare = ITEMS.set_column(2, GENRES, pa.array([[]] * 5, pa.list_(pa.string())))
    assert metadata("genres", bare, TRAIN, USER) is None


def embedded(handle: Handle, **changes) -> Embedded:
    shape = {"model": "m", "width": 7, "texts_cached": 0, "texts_embedded": 4}
    return Embedded(embeddings=handle, **shape, **changes)


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_the_stage_combines_what_is_on():
    texts = {"profiles": embedded(write_parquet("embeddings", block(["i1", "i2"], 7)))}
    items, train = write_parquet("items", ITEMS), write_parquet("train", TRAIN)
    users = write_parquet("users", pa.table({USER: ["a", "b"]}))
    both = sources.fn({"profiles": 1.0, "genres": 1.0}, texts, items, train, users, "items")
    assert (both.width, both.model, both.missing) == (10, "m", 1)
    table = read_parquet(both.embeddings)
    assert table[ITEM].to_pylist() == ["i1", "i2", "i3", "unseen"]
    alone = sources.fn({"genres": 1.0, "years": 1.0}, {}, items, train, users, "users")
    assert (alone.model, alone.missing) == ("none", 0)
    assert read_parquet(alone.embeddings)[USER].to_pylist() == ["a", "b"]
    bare = write_parquet("items", ITEMS.set_column(1, YEAR, pa.nulls(5, pa.int32())))
    with pytest.raises(BadInput, match=r"years needs items with years.* or leave out years"):
        sources.fn({"years": 1.0}, {}, bare, train, users, "items")


@pytest.mark.parametrize(
    ("given", "active"),
    [
        ({}, {"profiles": 1.0}),
        ({"sources": ["genres", "profiles"]}, {"profiles": 1.0, "genres": 1.0}),
        ({"sources": {"genres": 0.5, "profiles": 0}}, {"genres": 0.5}),
        ({"sources": {"years": 2, "offline": 1}}, {"offline": 1.0, "years": 2.0}),
    ],
)
def test_sources_are_a_list_or_weights(given, active):
    assert list(Targets(**given).active_sources.items()) == list(active.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "all sources are off"),
        ({"profiles": 0.0}, "all sources are off"),
        ({"genre": 1}, "Input should be 'profiles', 'offline', 'genres', 'years' or 'features'"),
        ({"genres": -1}, "greater than or equal to 0"),
        (["titles"], "Input should be 'profiles'"),
    ],
)
def test_wrong_sources_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Targets(sources=given)


def test_all_sources_are_named_and_the_worst_provenance_holds():
    known = embedded(Handle(path="f", sha256="0" * 64, rows=1))
    further = {"offline": "train-only", "genres": "train-only"}
    text = profiled("import", provenance="unknown")
    both = Described(side="items", profiled=text, embedded=known, further=further)
    assert (both.source, both.provenance) == ("import + offline + genres", "unknown")
    alone = Described(side="items", profiled=None, embedded=known, further={"genres": "train-only"})
    assert (alone.source, alone.provenance) == ("genres", "train-only")
    vectors = Described(side="users", profiled=None, embedded=known)
    assert (vectors.source, vectors.provenance) == ("import", "unknown")
