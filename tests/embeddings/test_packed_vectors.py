"""Vectors that a knowledge pack ships: used for exactly their text and text model."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.config import Embeddings
from models.errors import BadInput
from tasks.embeddings import packed_vectors
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.packed_vectors import pack_vectors, shipped
from tasks.embeddings.vector_store import text_keys
from tasks.profiles.knowledge_pack import PACKS, export
from tasks.storage.artifacts import read_parquet, write_parquet

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

HASHING = Embeddings(provider="hashing", dimensions=8)
FACTS = {"name": "toy", "dataset": "toy", "author": "a model", "written": "now", "license": "MIT"}
TOLD = {"prompt": "user-movies", "prompt_sha256": "0" * 16, "sees": "nothing"}


def rows(*texts):
    ids = [f"u{place}" for place in range(len(texts))]
    nothing = {"history_sha256": pa.nulls(len(ids), pa.string())}
    nothing["history_count"] = pa.nulls(len(ids), pa.int32())
    return pa.table({"user_id": ids, "text": list(texts), **nothing})


def embedded(config, *texts):
    table = rows(*texts).append_column("missing_reason", pa.nulls(len(texts), pa.string()))
    done = embeddings.fn(config, write_parquet("profiles", table))
    return done, np.stack(read_parquet(done.embeddings)["embedding"].to_pylist())


@pytest.fixture
def pack(data_dir, no_run_logger, tmp_path, monkeypatch):  # noqa: ARG001
    """A pack with vectors in `data/knowledge/`; the store that they came from is empty again."""
    monkeypatch.setattr(packed_vectors, "PACKS", tmp_path / "knowledge")
    folder = tmp_path / "knowledge" / "toy"
    export(folder, rows("Slow films.", "Loud films."), "users", FACTS, TOLD)
    embedded(HASHING, "Old films.")
    pack_vectors(folder, HASHING)
    assert not (folder / "vectors.parquet").exists()
    embedded(HASHING, "Slow films.", "Loud films.")
    pack_vectors(folder, HASHING)
    (data_dir / "embeddings.sqlite").unlink()
    return folder


def test_a_texts_vector_comes_from_the_pack_and_another_text_is_embedded(pack):
    done, matrix = embedded(HASHING, "Slow films.", "Loud films.", "Old films.")
    assert (done.texts_cached, done.texts_embedded) == (2, 1)
    (pack / "vectors.parquet").unlink()
    own, again = embedded(HASHING, "Slow films.", "Loud films.", "Old films.")
    assert own.texts_cached == 3
    np.testing.assert_array_equal(matrix, again)


@pytest.mark.usefixtures("pack")
def test_another_text_model_embeds():
    done, _ = embedded(HASHING.model_copy(update={"dimensions": 16}), "Slow films.")
    assert (done.texts_cached, done.texts_embedded) == (0, 1)


def test_a_damaged_file_of_vectors_is_refused(pack):
    (pack / "vectors.parquet").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"vectors.parquet: .*sha256 differs.* delete it"):
        embedded(HASHING, "Slow films.")


def test_the_shipped_pack_has_the_vectors_of_all_its_texts():
    folder = PACKS / "ml-100k"
    files = [pq.read_table(folder / f"{side}.parquet") for side in ("users", "items")]
    texts = [text for table in files for text in table["text"].to_pylist()]
    keys, matrix, cut_at = shipped(text_keys(Embeddings(), texts))
    assert len(keys) == len(set(texts)) == 2625
    assert np.abs(np.linalg.norm(matrix, axis=1) - 1).max() < 0.01
    assert not any(cut_at)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2.5e6
