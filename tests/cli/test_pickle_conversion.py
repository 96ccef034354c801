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


@pytest.mark.parametrize("home", ["scipy.sparse.coo", "scipy.sparse._coo"])
def test_pickles_of_older_packages_are_read(tmp_path, home):
    written = pickle.dumps(MATRIX, 2).replace(b"numpy._core", b"numpy.core")
    rows = converted(tmp_path, written.replace(b"scipy.sparse._coo", home.encode()))
    assert len(rows) == 2


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


N_USERS, N_ITEMS = 4, 3
TRAIN = sparse.csr_matrix(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32))
VALID = sparse.coo_matrix(([1.0, 1.0, 0.0], ([0, 1, 3], [1, 2, 2])), shape=(N_USERS, N_ITEMS))
TEST = sparse.coo_matrix(([1], ([0], [2])), shape=(N_USERS, N_ITEMS))


def profiles(n):
    return {i: {"profile": f"Likes {i}.", "reasoning": "It was bought."} for i in range(n)}


PUBLISHED = {
    "trn_mat": TRAIN,
    "val_mat": VALID,
    "tst_mat": TEST,
    "usr_prf": profiles(N_USERS),
    "itm_prf": profiles(N_ITEMS),
    "usr_emb_np": np.eye(N_USERS, 5),
    "itm_emb_np": np.eye(N_ITEMS, 5),
}
"""The layout of RLMRec's folders data/amazon, data/steam and data/yelp."""


def converted_folder(tmp_path, code=0, **others):
    source, output = tmp_path / "yelp", tmp_path / "out"
    source.mkdir()
    for name, held in (PUBLISHED | others).items():
        if held is not None:
            (source / f"{name}.pkl").write_bytes(pickle.dumps(held))
    done = CliRunner().invoke(app, ["data", "convert", str(source), str(output)])
    assert done.exit_code == code, done.output
    assert output.exists() == (code == 0)
    return " ".join(done.output.split()) if code else output


def test_a_published_folder_becomes_what_a_run_reads(tmp_path):
    output = converted_folder(tmp_path)
    parts = [(output / f"{part}.tsv").read_text().split("\n") for part in ("train", "valid")]
    assert parts == [["0\t0", "1\t1", "2\t2", "3\t0", ""], ["0\t1", "1\t2", ""]]
    assert (output / "test.tsv").read_text() == "0\t2\n"
    pairs = pq.read_table(output / "interactions.parquet")
    assert pairs.num_rows == 7
    assert pq.read_table(output / "item_profiles.parquet").to_pylist()[2] == {
        "item_id": "2",
        "text": "Likes 2.",
    }
    assert pq.read_table(output / "user_vectors.parquet").num_rows == N_USERS


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"usr_emb_np": None, "tst_mat": None}, "it lacks tst_mat.pkl, usr_emb_np.pkl. Name"),
        ({"tst_mat": TEST.T}, "tst_mat.pkl: it is 3 × 4, but trn_mat.pkl is 4 × 3"),
        ({"itm_emb_np": np.eye(N_USERS)}, "itm_emb_np.pkl: it has 4 rows, but trn_mat.pkl is 4 ×"),
        ({"usr_prf": profiles(N_ITEMS)}, "usr_prf.pkl: it has 3 rows"),
        ({"itm_prf": {7 + i: "x" for i in range(3)}}, "itm_prf.pkl: it has 3 rows, but"),
        ({"trn_mat": np.eye(4)}, "trn_mat.pkl: it holds vectors, not interactions"),
        ({"usr_prf": {0: Evil((os.system, ("touch ran",)))}}, "usr_prf.pkl: this pickle is not"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, others, said):
    assert said in converted_folder(tmp_path, code=2, **others)
