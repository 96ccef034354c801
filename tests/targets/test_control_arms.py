"""Control arms hold what they say, and nothing of a profile."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from models.config import ARMS, Pipeline, Tap, Targets
from models.config.arms import ControlInputs
from models.embeddings.sources import all_metadata
from models.errors import BadInput
from models.recommenders.ials import log_factors
from models.schemas import GENRES, ITEM, USER
from models.targets.reduction import standardised
from tests.support.toy_world import SMALL

CONFIG = Targets()
TRAIN = pa.table(
    {
        USER: ["a", "a", "a", "b", "b", "c", "stranger"],
        ITEM: ["i1", "i2", "i3", "i1", "i3", "i2", "i1"],
    }
)
ITEMS = pa.table(
    {
        ITEM: ["i1", "i2", "i3", "i4"],
        GENRES: pa.array([["Drama"], ["War", "Drama"], [], ["Comedy"]], pa.list_(pa.string())),
    }
)
USERS = ["c", "a", "b", "nobody"]


def some_targets(n=400, width=3):
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.8, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 2.0]])
    return (rng.standard_normal((n, width)) @ mixing + 1).astype(np.float32)


def given(targets=None, *, seed=1, train=TRAIN, items=ITEMS, subjects=USERS, width=8):
    targets = np.zeros((len(subjects), width), "f4") if targets is None else targets
    standardise = partial(standardised, width=targets.shape[1], config=CONFIG)
    users = pa.array(subjects)
    return ControlInputs(
        targets,
        USER,
        subjects,
        train,
        items,
        seed,
        CONFIG.seed,
        standardise,
        metadata=lambda: all_metadata(items, train, users, USER),
        factors=lambda width: log_factors(train, users, USER, CONFIG.seed, width),
    )


def made_by(arm, inputs):
    return ARMS[arm].make_targets(inputs)


def distances(matrix):
    return np.linalg.norm(matrix[:, None] - matrix[None], axis=2)


def test_shuffled_are_the_same_rows_elsewhere():
    targets = some_targets()
    one, again, other = (made_by("shuffled", given(targets, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert (one != targets).any(axis=1).mean() > 0.95
    assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, targets.tolist()))


def test_noise_has_the_targets_moments_and_none_of_their_rows():
    targets = some_targets(n=20_000)
    drawn = made_by("noise", given(targets))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(0), targets.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(targets.T), atol=0.12)
    assert abs(np.corrcoef(drawn[:, 0], targets[:, 0])[0, 1]) < 0.03
    assert not np.array_equal(drawn, made_by("noise", given(targets, seed=2)))


def test_genre_histogram_keeps_the_distances_of_the_shares():
    made = made_by("genre-histogram", given())
    # Drama, War: c saw War+Drama; a Drama, then War+Drama; b Drama; nobody nothing.
    shares = np.array([[0.5, 0.5], [2 / 3, 1 / 3], [1.0, 0.0], [0.0, 0.0]])
    expected = distances(shares)
    found = distances(made.astype(np.float64))
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=1e-5)
    assert made.shape == (4, 8)
    assert made.std() == pytest.approx(1, rel=1e-4)


def test_genre_histogram_without_genres_says_so():
    bare = ITEMS.set_column(1, GENRES, pa.array([[]] * 4, pa.list_(pa.string())))
    with pytest.raises(BadInput, match="genre-histogram needs items with genres"):
        made_by("genre-histogram", given(items=bare))


def test_history_svd_is_the_svd_of_the_training_matrix():
    rng = np.random.default_rng(0)
    seen = rng.random((12, 9)) < 0.4
    seen[:, 0] = True
    users = [f"u{n}" for n in range(12)]
    rows, columns = np.nonzero(seen)
    train = pa.table({USER: [users[r] for r in rows], ITEM: [f"i{c}" for c in columns]})
    inputs = given(train=train, subjects=users, width=4)
    made = made_by("history-svd", inputs)
    left, values, _ = np.linalg.svd(seen.astype(float))
    expected = distances(left[:, :4] * values[:4])
    found = distances(made.astype(np.float64))
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=1e-5)
    assert np.array_equal(made, made_by("history-svd", inputs))


def two_tastes():
    train = SMALL.interactions()
    return given(np.zeros((SMALL.n_users, 8), "f4"), train=train, subjects=SMALL.users)


def test_log_factors_tell_tastes_apart_and_repeat():
    """Users of one taste are nearer to each other than to the others, without any text."""
    made = made_by("log-factors", two_tastes())
    assert made.shape == (SMALL.n_users, 8)
    assert made.std() == pytest.approx(1, rel=1e-4)
    apart = distances(made.astype(np.float64))
    same = np.equal.outer(np.arange(SMALL.n_users) % 2, np.arange(SMALL.n_users) % 2)
    assert apart[same].mean() < 0.7 * apart[~same].mean()
    assert np.array_equal(made, made_by("log-factors", two_tastes()))


def test_metadata_keeps_the_distances_of_genres_and_years():
    items = ITEMS.append_column("year", pa.array([1990, 1990, 1970, 1950], pa.int32()))
    made = made_by("genres-years", given(items=items, subjects=["c", "a", "b"]))
    # Items i1 Drama, i2 War and Drama, i3 no genre; years of i1 and i2 are alike.
    assert made.shape == (3, 8)
    apart = distances(made.astype(np.float64))
    assert apart[0, 1] > 0.1  # c saw i2 alone, a all three
    bare = items.set_column(1, GENRES, pa.array([[]] * 4, pa.list_(pa.string())))
    years = distances(
        made_by("genres-years", given(items=bare, subjects=["c", "a", "b"])).astype("f8")
    )
    assert years[1, 2] < years[0, 1]  # of a, b and c, only c saw no old film
    none = bare.set_column(2, "year", pa.nulls(4, pa.int32()))
    with pytest.raises(BadInput, match="genres-years needs items with genres or years"):
        made_by("genres-years", given(items=none))


def test_a_control_is_not_cut_where_embeddings_stay_whole():
    """Ten columns against targets of three: principal components for a layer, else all ten."""
    wide = np.random.default_rng(0).normal(size=(30, 10))
    assert standardised(wide, 3, Targets(reduction="pca")).shape == (30, 3)
    whole = standardised(wide, 3, Targets(reduction="none"))
    assert whole.shape == (30, 10)
    apart = distances(wide) / distances(wide).max()
    np.testing.assert_allclose(distances(whole) / distances(whole).max(), apart, atol=1e-5)


def test_every_arm_trains_with_the_same_transfer_and_budget():
    pipeline = Pipeline.model_validate(
        {
            "experiment": "e",
            "models": {"BPR": {}, "EASE": {}},
            "training": {"arms": ["baseline", "transfer", "shuffled", "noise"], "seeds": [1, 2]},
        }
    )
    tap = {"kind": "module", "name": "user_embedding"}
    taps = {"BPR": {"users": Tap(**tap)}, "EASE": {}}
    jobs = pipeline.jobs(taps)
    assert [(job.model, job.arm, job.seed) for job in jobs if job.model == "EASE"] == [
        ("EASE", "baseline", 1),
        ("EASE", "baseline", 2),
    ]
    knowing = [job for job in jobs if job.arm != "baseline"]
    assert len(knowing) == 6
    assert (
        len({(job.budget, job.transfer.model_dump_json(), *job.taps.items()) for job in knowing})
        == 1
    )
    assert all(job.transfer is None for job in jobs if job.arm == "baseline")
