"""`llmkt data convert`: foreign pickles become Parquet, and none of them runs anything."""

import os
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from typer.testing import CliRunner

from flows.cli.main import app

MATRIX = sparse.coo_matrix(([1.0, 2.0], ([0, 2], [1, 0])), shape=(3, 2))


class Evil:
    """What a pickle can do."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


def converted(tmp_path, held, *options, code=0, protocol=pickle.HIGHEST_PROTOCOL):
    source, output = tmp_path / "made.pkl", tmp_path / "out.parquet"
    source.write_bytes(held if isinstance(held, bytes) else pickle.dumps(held, protocol))
    done = CliRunner().invoke(app, ["data", "convert", str(source), str(output), *options])
    assert done.exit_code == code, done.output
    return done.output if code else pq.read_table(output).to_pylist()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["tocoo", "tocsr", "tocsc"])
def test_a_sparse_matrix_becomes_interactions(tmp_path, form, protocol):
    rows = converted(tmp_path, getattr(MATRIX, form)(), protocol=protocol)
    assert sorted((row["user_id"], row["item_id"], row["rating"]) for row in rows) == [
        ("0", "1", 1.0),
        ("2", "0", 2.0),
    ]


def test_arrays_become_vectors_and_mappings_texts(tmp_path):
    rows = converted(tmp_path, np.arange(6, dtype=np.float64).reshape(2, 3), "--items")
    assert rows == [
        {"item_id": "0", "embedding": [0.0, 1.0, 2.0]},
        {"item_id": "1", "embedding": [3.0, 4.0, 5.0]},
    ]
    texts = {0: {"profile": "Likes jazz.", "reasoning": "…"}, "b": "Likes rock."}
    assert converted(tmp_path, texts) == [
        {"user_id": "0", "text": "Likes jazz."},
        {"user_id": "b", "text": "Likes rock."},
    ]


@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch ran",)),
        (eval, ("1",)),
        (__import__, ("os",)),
        (np.load, ("x.npy",)),
        (np.fromfile, ("x",)),
    ],
)
def test_nothing_that_a_pickle_names_is_called(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    out = converted(tmp_path, {"0": Evil(call)}, code=2)
    assert "which could run code" in out
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("held", [b"", b"not a pickle", b"\x80\x05K\x01.", 7, {"0": 1}, {}])
def test_what_holds_something_else_is_refused(tmp_path, held):
    assert "made.pkl: " in converted(tmp_path, held, code=2)
