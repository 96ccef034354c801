import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.config import Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, TARGET, USER, vectors
from models.targets.reduction import reduce
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.targets.targets_task import targets

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)


@pytest.mark.parametrize("reduction", ["umap", "pca"])
@pytest.mark.parametrize("scale", ["global", "per-coordinate", "none"])
def test_targets_are_centred_and_scaled(embeddings, reduction, scale):
    reduced = reduce(embeddings, 5, Targets(reduction=reduction, scale=scale))
    assert reduced.shape == (60, 5)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-5)
    if scale == "per-coordinate":
        np.testing.assert_allclose(reduced.std(axis=0), 1, atol=1e-5)
    elif scale == "global":
        assert reduced.std() == pytest.approx(1, abs=1e-5)
        assert np.ptp(reduced.std(axis=0)) > 0.01
    else:
        assert abs(reduced.std() - 1) > 0.01


def test_pca_of_a_line_by_hand():
    points = np.array([[0, 0], [3, 4], [6, 8]], dtype=np.float32)
    raw = reduce(points, 1, Targets(reduction="pca", scale="none"))
    np.testing.assert_allclose(np.abs(raw), [[5], [0], [5]], atol=1e-6)
    scaled = reduce(points, 1, Targets(reduction="pca"))
    np.testing.assert_allclose(np.abs(scaled), [[1.5**0.5], [0], [1.5**0.5]], atol=1e-6)


def test_global_scale_keeps_relative_sizes_and_per_coordinate_does_not():
    points = np.array([[4, 1], [4, -1], [-4, 1], [-4, -1]], dtype=np.float32)
    kept = reduce(points, 2, Targets(reduction="pca")).std(axis=0)
    np.testing.assert_allclose(kept, np.array([4, 1]) / 8.5**0.5, rtol=1e-5)
    levelled = reduce(points, 2, Targets(reduction="pca", scale="per-coordinate")).std(axis=0)
    np.testing.assert_allclose(levelled, [1, 1], rtol=1e-5)


def test_a_coordinate_that_is_only_rounding_noise_is_not_blown_up():
    two_profiles = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)
    embeddings = np.repeat(two_profiles, 10, axis=0)
    reduced = reduce(embeddings, 3, Targets(reduction="pca", scale="per-coordinate"))
    np.testing.assert_allclose(reduced.std(axis=0), [1, 0, 0], atol=1e-6)


def test_without_centring_the_scale_stays_the_same(embeddings):
    raw = reduce(embeddings, 5, Targets(scale="none", centre=False))
    shifted = reduce(embeddings, 5, Targets(centre=False))
    centred = reduce(embeddings, 5, Targets())
    assert np.abs(raw.mean(axis=0)).max() > 0.1
    np.testing.assert_allclose(shifted - shifted.mean(axis=0), centred, atol=1e-5)


@pytest.mark.parametrize("reduction", ["umap", "pca"])
def test_equal_seed_gives_equal_bits(embeddings, reduction):
    first = reduce(embeddings, 5, Targets(reduction=reduction))
    np.testing.assert_array_equal(first, reduce(embeddings, 5, Targets(reduction=reduction)))


def test_another_process_gives_equal_bits(embeddings, tmp_path):
    first = reduce(embeddings, 5, Targets(reduction="pca"))
    np.save(tmp_path / "in.npy", embeddings)
    code = (
        "import numpy as np, sys; from models.config import Targets; "
        "from models.targets.reduction import reduce; "
        "np.save(sys.argv[2], reduce(np.load(sys.argv[1]), 5, Targets(reduction='pca')))"
    )
    arguments = [str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, check=True)
    np.testing.assert_array_equal(first, np.load(tmp_path / "out.npy"))


def test_another_seed_gives_other_umap_coordinates(embeddings):
    assert not np.array_equal(
        reduce(embeddings, 5, Targets()), reduce(embeddings, 5, Targets(seed=1))
    )


@pytest.mark.parametrize(
    "changed", [{"n_neighbors": 4}, {"min_dist": 0.1}, {"metric": "euclidean"}]
)
def test_each_umap_parameter_counts(embeddings, changed):
    default, other = (reduce(embeddings, 5, Targets(umap=umap)) for umap in ({}, changed))
    assert not np.allclose(default, other)


def test_umap_can_be_wider_than_the_embeddings(embeddings):
    assert reduce(embeddings, 24, Targets()).shape == (60, 24)


def test_umap_keeps_clusters_apart():
    generator = np.random.default_rng(2)
    centres = np.repeat(np.eye(16, dtype=np.float32)[:3] * 5, 20, axis=0)
    noise = generator.normal(scale=0.3, size=(60, 16)).astype(np.float32)
    reduced = reduce(centres + noise, 4, Targets(umap={"n_neighbors": 10}))
    distances = np.linalg.norm(reduced[:, None] - reduced[None], axis=2)
    same = np.equal.outer(np.arange(60) // 20, np.arange(60) // 20)
    assert distances[same].max() < distances[~same].min()


def test_umap_leaves_thread_counts_alone(embeddings):
    before = torch.get_num_threads()
    unusual = (os.cpu_count() or 1) + 1
    torch.set_num_threads(unusual)
    try:
        reduce(embeddings, 5, Targets())
        assert torch.get_num_threads() == unusual
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("shape", "width", "reduction", "numbers"),
    [
        ((10, 16), 11, "pca", ("10", "11")),
        ((60, 16), 17, "pca", ("16", "17")),
        ((10, 16), 10, "umap", ("10", "11")),
        ((2, 16), 1, "umap", ("2", "3")),
    ],
)
def test_a_width_that_cannot_be_is_refused_with_both_numbers(shape, width, reduction, numbers):
    embeddings = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(BadInput, match=r"embedding_size|more users") as refused:
        reduce(embeddings, width, Targets(reduction=reduction))
    assert all(number in str(refused.value) for number in numbers)


@pytest.mark.parametrize("reduction", ["umap", "pca"])
@pytest.mark.parametrize("n", [0, 1, 20])
def test_equal_embeddings_are_refused(reduction, n):
    with pytest.raises(BadInput, match=f"all {n} embeddings are equal"):
        reduce(np.ones((n, 16), dtype=np.float32), 2, Targets(reduction=reduction))


def test_the_stage_writes_one_target_per_embedded_user(embeddings, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path))
    users = pa.array([f"u{number:02d}" for number in range(60)])
    handle = write_parquet("embeddings", to_table(users, EMBEDDING, embeddings))
    config = Targets(reduction="pca", width=9)
    done = targets.fn(config, handle, 5)
    table = read_parquet(done.targets)
    assert table.schema.equals(vectors(TARGET, 5))
    assert table[USER].to_pylist() == users.to_pylist()
    np.testing.assert_array_equal(to_matrix(table[TARGET]), reduce(embeddings, 5, config))
    assert (done.reduction, done.width) == ("pca", 5)
    assert targets.fn(config, handle, 5) == done


def test_targets_do_not_depend_on_the_number_of_threads():
    from threadpoolctl import threadpool_limits

    vectors = np.random.default_rng(5).standard_normal((3000, 96)).astype(np.float32)
    table = to_table(pa.array([f"u{n}" for n in range(3000)]), EMBEDDING, vectors)
    embeddings = write_parquet("embeddings", table)
    digests = set()
    for threads in (1, 2, 4):
        with threadpool_limits(threads, user_api="blas"):
            made = targets.fn(Targets(reduction="pca"), embeddings, 32)
        digests.add(made.targets.sha256)
    assert len(digests) == 1
