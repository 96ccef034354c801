"""A reducer that is fitted once and kept: same bits, known newcomers, a refit by policy."""

import re

import numpy as np
import pyarrow as pa
import pytest

from flows.steps.knowledge import KnowledgeSteps, kept_reducers
from models.config import Pipeline, Refit, Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, TARGET, USER
from models.targets import umap_state
from models.targets.kept_reducers import Unusable, drift, dump, load
from models.targets.reduction import _principal, fit, reduce
from models.targets.umap_state import estimator, from_arrays, place, to_arrays
from tasks.embeddings.outputs import Described, Embedded
from tasks.execution.cache_key import cache_key
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.targets import targets_task
from tasks.targets.outputs import Kept
from tasks.targets.targets_task import targets


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)


def fitted(embeddings, width, config):
    """A reducer, and what it makes of the embeddings that it was fitted on."""
    made = fit(lambda: iter([embeddings]), len(embeddings), width, config)
    return made.reducer, made.targets(embeddings)


REDUCTIONS = [("umap", 5), ("pca", 5), ("none", None)]


@pytest.mark.parametrize("scale", ["global", "per-coordinate", "none"])
@pytest.mark.parametrize("centre", [True, False])
def test_targets_are_the_librarys_coordinates_centred_and_scaled(embeddings, scale, centre):
    from sklearn.decomposition import PCA
    from umap import UMAP

    raw = {
        "none": embeddings.astype(np.float64),
        "pca": PCA(5, svd_solver="covariance_eigh").fit_transform(embeddings.astype(np.float64)),
        "umap": UMAP(
            n_components=5, min_dist=0.9, metric="cosine", random_state=42, n_jobs=1, init="pca"
        )
        .fit_transform(embeddings)
        .astype(np.float64),
    }
    for reduction, width in REDUCTIONS:
        coordinates = raw[reduction]
        centred = coordinates - coordinates.mean(axis=0)
        spread = {"global": centred.std(), "per-coordinate": centred.std(axis=0), "none": 1.0}
        expected = ((centred if centre else coordinates) / spread[scale]).astype(np.float32)
        config = Targets(reduction=reduction, scale=scale, centre=centre)
        reducer, made = fitted(embeddings, width, config)
        np.testing.assert_allclose(made, expected, atol=1e-5 * expected.std())
        np.testing.assert_array_equal(made, reduce(embeddings, width, config))
        assert reducer.settings["reduction"] == reduction


@pytest.mark.parametrize(("reduction", "width"), REDUCTIONS)
def test_a_stored_reducer_transforms_to_the_same_bits(embeddings, reduction, width):
    reducer, made = fitted(embeddings, width, Targets(reduction=reduction))
    content = dump(reducer)
    assert content == dump(fitted(embeddings, width, Targets(reduction=reduction))[0])
    assert b"umap_" not in content  # the name of UMAP's module, as a pickle has it
    again = load(content)
    later = np.random.default_rng(7).normal(size=(4, 16)).astype(np.float32)
    np.testing.assert_array_equal(reducer.transform(later), again.transform(later))
    assert again.transform(later).shape == (4, made.shape[1])
    if reduction != "umap":
        np.testing.assert_allclose(again.transform(embeddings), made, atol=1e-5)


def test_pca_transforms_by_the_line_centre_and_scale_of_the_fit():
    points = np.array([[0, 0], [3, 4], [6, 8]], dtype=np.float32)
    reducer, made = fitted(points, 1, Targets(reduction="pca"))
    # On the line 5 lies between the points; their standard deviation is 5·√(2/3).
    later = reducer.transform(np.array([[9, 12], [3, 4]], dtype=np.float32))
    np.testing.assert_allclose(later, [[2 * made[2, 0]], [0]], atol=1e-6)
    np.testing.assert_allclose(np.abs(later[0]), 10 / (5 * (2 / 3) ** 0.5), rtol=1e-6)


def test_umap_puts_newcomers_among_their_like():
    generator = np.random.default_rng(2)
    centres = np.repeat(np.eye(16, dtype=np.float32)[:3] * 5, 20, axis=0)
    noise = generator.normal(scale=0.3, size=(60, 16)).astype(np.float32)
    reducer, made = fitted(centres + noise, 4, Targets(umap={"n_neighbors": 10}))
    later = reducer.transform(np.eye(16, dtype=np.float32)[:3] * 5 + noise[:3])
    nearest = np.linalg.norm(later[:, None] - made[None], axis=2).argmin(axis=1) // 20
    assert nearest.tolist() == [0, 1, 2]
    # On a fitted point: at its place; elsewhere the same place alone as with others.
    np.testing.assert_allclose(reducer.transform((centres + noise)[7:8]), made[7:8], atol=1e-6)
    np.testing.assert_allclose(reducer.transform(centres[:1] + noise[:1]), later[:1], atol=1e-6)
    box = made[:20].min(axis=0), made[:20].max(axis=0)
    assert (later[0] >= box[0]).all()
    assert (later[0] <= box[1]).all()


def test_a_stored_umap_of_other_versions_is_not_used(embeddings, monkeypatch):
    stored = dump(fitted(embeddings, 5, Targets(reduction="umap"))[0])
    plain = dump(fitted(embeddings, 5, Targets(reduction="pca"))[0])
    monkeypatch.setattr("models.targets.kept_reducers.version", lambda package: f"{package} 99")
    with pytest.raises(Unusable, match="fitted with numba 0"):
        load(stored)
    assert load(plain).components.shape == (5, 16)


@pytest.fixture(scope="module")
def indexed():
    """A UMAP with a search index: of many points, or as if they were many."""
    points = np.random.default_rng(5).normal(size=(300, 8)).astype(np.float32)
    settings = {**Targets().identity(), "width": 3}
    manifold = estimator(settings, 8)
    manifold.set_params(force_approximation_algorithm=True, n_epochs=20)
    manifold.fit(points).set_params(n_epochs=None)
    return manifold, settings


@pytest.mark.slow  # the index compiles for half a minute
def test_a_umap_with_a_search_index_is_rebuilt_to_the_bit(indexed):
    manifold, settings = indexed
    arrays, has_index = to_arrays(manifold)
    assert has_index
    again = from_arrays(arrays, has_index, settings)
    later = np.random.default_rng(6).normal(size=(40, 8)).astype(np.float32)
    np.testing.assert_array_equal(place(again, later), place(manifold, later))
    alone = np.vstack([place(again, row[None]) for row in later])
    np.testing.assert_allclose(alone, place(again, later), rtol=1e-6)  # whatever is placed with it
    arrays["placed"] = arrays["placed"][1:]
    with pytest.raises(ValueError, match="points and coordinates differ"):
        from_arrays(arrays, has_index, settings)


@pytest.mark.slow  # as above
def test_weights_of_fitted_neighbours_are_umaps_own(indexed, monkeypatch):
    manifold, _ = indexed
    later = np.random.default_rng(6).normal(size=(40, 8)).astype(np.float32)
    later[0] = manifold._raw_data[7]
    manifold.transform_mode, manifold._input_hash = "graph", None
    umaps = manifold.transform(later).toarray()
    monkeypatch.setattr(umap_state, "_SEARCH_WIDTH", 0.24)  # as UMAP's transform searches
    ours = umap_state._strengths(manifold, later).toarray()
    np.testing.assert_array_equal(ours, umaps)
    assert ours[0].argmax() == 7


@pytest.mark.parametrize("content", [b"", b"\x80\x05.", b"\xff" * 64, b"\x02" + bytes(7) + b"{}"])
def test_what_is_no_reducer_is_refitted(content):
    with pytest.raises(Unusable, match="no such file"):
        load(content)


def test_drift_by_hand():
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float32)
    assert drift(square, square[::-1]) == 0
    assert drift(square, square + np.float32([3, 4])) == pytest.approx(5 / 2**0.5)
    # One of four moves by 4: the mean moves by 1.
    moved = square + np.float32([[4, 0], [0, 0], [0, 0], [0, 0]])
    assert drift(square, moved) == pytest.approx(1 / 2**0.5)


def stored(ids, matrix):
    return write_parquet("embeddings", to_table(pa.array(ids), EMBEDDING, matrix))


def rows_of(targeted):
    table = read_parquet(targeted.targets)
    return dict(zip(table[USER].to_pylist(), to_matrix(table[TARGET]), strict=True))


USERS = [f"u{number:02d}" for number in range(60)]


@pytest.fixture
def night(embeddings, data_dir, no_run_logger):  # noqa: ARG001 - an empty data folder, no run
    """A first night: embeddings of 60 users, and what was made of them."""
    handle = stored(USERS, embeddings)
    return handle, targets.fn(Targets(reduction="umap"), handle, 5, True)


def second(night, ids, matrix, policy=None, config=None, width=5):
    kept = night[1].kept(policy or Refit())
    return targets.fn(config or Targets(reduction="umap"), stored(ids, matrix), width, True, kept)


def test_the_unchanged_keep_their_targets_and_the_others_are_transformed(night, embeddings):
    rng = np.random.default_rng(3)
    matrix = np.vstack([embeddings[1:], rng.normal(size=(2, 16))]).astype(np.float32)
    matrix[0] += 0.1
    ids = [*USERS[1:], "v0", "v1"]  # u00 has left, u01 has changed, v0 and v1 are new
    result = second(night, ids, matrix)
    assert (result.refit, result.unchanged, result.transformed) == ("kept", 58, 3)
    assert (result.reducer, result.fitted_on) == (night[1].reducer, night[0])
    before, after = rows_of(night[1]), rows_of(result)
    assert list(after) == ids
    for user in USERS[2:]:
        np.testing.assert_array_equal(before[user], after[user])
    expected = load(night[1].reducer.file.read_bytes()).transform(matrix[[0, 59, 60]])
    np.testing.assert_array_equal([after[user] for user in ("u01", "v0", "v1")], expected)


def test_a_night_without_change_hands_on_the_same_artifact(night, embeddings):
    result = second(night, USERS, embeddings)
    assert (result.targets, result.refit, result.transformed) == (night[1].targets, "kept", 0)


def test_a_third_night_compares_with_the_second_and_counts_since_the_fit(night, embeddings):
    rng = np.random.default_rng(3)
    new = rng.normal(size=(16, 16)).astype(np.float32)
    loose = Refit(drift=9)
    first = USERS + [f"v{n}" for n in range(8)]
    two = second(night, first, np.vstack([embeddings, new[:8]]), loose)
    assert (two.refit, two.transformed) == ("kept", 8)
    # 16 of 76 were not there at the fit, though only 8 are new tonight.
    later = np.vstack([embeddings, new])
    three = second((None, two), [*first, *[f"w{n}" for n in range(8)]], later, loose)
    assert three.refit == "21 % new users"
    patient = loose.model_copy(update={"new_share": 0.25})
    three = second((None, two), [*first, *[f"w{n}" for n in range(8)]], later, patient)
    assert (three.refit, three.unchanged, three.transformed) == ("kept", 68, 8)
    np.testing.assert_array_equal(rows_of(two)["v3"], rows_of(three)["v3"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"matrix": lambda e: e + np.float32(0.2)}, r"drift 0\.\d\d"),
        ({"config": Targets(reduction="umap", seed=1)}, "other settings"),
        ({"config": Targets(reduction="pca")}, "other settings"),
        ({"width": 4}, "other settings"),
        ({"matrix": lambda e: e[:, :15]}, "other settings"),
    ],
)
def test_a_refit_is_recorded_with_its_reason(night, embeddings, change, reason):
    matrix = change.get("matrix", lambda e: e)(embeddings)
    config, width = change.get("config", Targets(reduction="umap")), change.get("width", 5)
    result = second(night, USERS, matrix, config=config, width=width)
    assert re.fullmatch(reason, result.refit)
    assert result.reducer != night[1].reducer
    np.testing.assert_array_equal(
        np.stack(list(rows_of(result).values())), reduce(matrix, width, config)
    )
    assert result.fitted_on == result.embeddings


def test_without_keeping_nothing_is_stored_and_the_policy_decides_no_key(night):
    once = targets.fn(Targets(reduction="umap"), night[0], 5)
    assert once.targets == night[1].targets
    assert once.reducer is None
    assert once.kept(Refit()) is None

    def key(policy, kept):
        config = Targets(reduction="umap", refit=policy)
        given = night[1].kept(policy) if kept else None
        return cache_key("targets", 1, {"config": config, "kept": given})

    lax = Refit(new_share=0.9)
    assert key(Refit(), kept=False) == key(lax, kept=False)
    assert key(Refit(), kept=True) != key(lax, kept=True)


class Here:
    """Runs stages at once, without Prefect."""

    def run(self, stage, *inputs, side=None):  # noqa: ARG002 - as `Stages.run`
        return stage.fn(*inputs)


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_a_flow_hands_reducers_from_one_night_to_the_next(embeddings):
    reduction, asked = Targets(reduction="umap"), Targets(reduction="none")
    pipeline = Pipeline.model_validate(
        {
            "experiment": "nights",
            "models": {"BPR": {}, "LightGCN": {}, "NeuMF": {}},
            "training": {"seeds": [1, 2]},
        }
    )
    forms = {"users": {"BPR": (reduction, 5), "LightGCN": (reduction, 5), "NeuMF": (asked, 64)}}

    def targets_of(ids, matrix, kept):
        embedded = Embedded(
            embeddings=stored(ids, matrix), model="m", width=16, texts_cached=0, texts_embedded=0
        )
        described = [Described(side="users", profiled=None, embedded=embedded)]
        return KnowledgeSteps(pipeline, None, None, Here()).target(forms, described, kept)

    once = targets_of(USERS, embeddings, None)
    assert {sides["users"].reducer for sides in once.values()} == {None}
    assert kept_reducers(once, Refit()) == {}

    first = targets_of(USERS, embeddings, {})
    assert {sides["users"].refit for sides in first.values()} == {"first fit"}
    kept = kept_reducers(first, Refit())
    assert kept.keys() == {"users umap 5", "users none"}
    kept = {
        name: Kept.model_validate_json(reducer.model_dump_json()) for name, reducer in kept.items()
    }

    rng = np.random.default_rng(4)
    later = np.vstack([embeddings, rng.normal(size=(1, 16))]).astype(np.float32)
    second = targets_of([*USERS, "v"], later, kept)
    assert second.keys() == {
        (m, "transfer", s) for m in ("BPR", "LightGCN", "NeuMF") for s in (1, 2)
    }
    for sides in second.values():
        assert (sides["users"].refit, sides["users"].unchanged, sides["users"].transformed) == (
            "kept",
            60,
            1,
        )
    assert second["BPR", "transfer", 1] == second["LightGCN", "transfer", 2]
    assert second["NeuMF", "transfer", 1]["users"].width == 16


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_umap_of_many_is_fitted_on_a_sample_and_places_the_rest(monkeypatch):
    matrix = np.random.default_rng(3).normal(size=(260, 12)).astype(np.float32)
    table = to_table(pa.array([f"u{n:03}" for n in range(260)]), EMBEDDING, matrix)
    handle = write_parquet("embeddings", table)
    monkeypatch.setattr(targets_task, "AT_ONCE", 64)
    config = Targets.model_validate({"reduction": "umap", "umap": {"fit_sample": 100}})
    made = targets.fn(config, handle, 4, True)
    found = to_matrix(read_parquet(made.targets)[TARGET])
    again = targets.fn(config, handle, 4)
    assert again.targets.sha256 == made.targets.sha256
    sample = np.sort(np.random.default_rng(config.seed).choice(260, 100, replace=False))
    alone = reduce(matrix[sample], 4, Targets(reduction="umap"))
    np.testing.assert_allclose(found[sample], alone, atol=1e-4 * alone.std())
    np.testing.assert_allclose(alone.mean(axis=0), 0, atol=1e-5)
    assert alone.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.1)  # and of all, nearly
    assert found.std() == pytest.approx(1, abs=0.25)
    other = targets.fn(config.model_copy(update={"seed": 1}), handle, 4)
    assert other.targets.sha256 != made.targets.sha256


def test_too_few_users_need_a_narrower_layer():
    """Width follows the layer, so the advice is the setting that narrows the layer."""
    with pytest.raises(BadInput, match=r"at most 18 .*, not 64 .*embedding_size .* to 18 or less"):
        _principal(np.eye(384), 18, 64)


def test_what_umap_compiles_is_kept_for_the_next_process():
    """Otherwise each night compiles for longer than it computes."""
    from numba.core.caching import NullCache
    from umap import layouts, umap_, utils

    estimator({"width": 2, "seed": 1, "umap": Targets().umap.model_dump()}, 8)
    for function in (
        utils.fast_knn_indices,
        utils.submatrix,
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,
    ):
        assert not isinstance(function._cache, NullCache), function
