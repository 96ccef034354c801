"""`llmkt split export`: what other programs read is the split that is judged here."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from flows.cli.main import app
from models.config import Pipeline
from models.schemas import ITEM, USER
from models.statistics.comparability import split_digest
from tasks.inspection.current_profiles import recalled
from tasks.inspection.pickle_conversion import convert
from tasks.storage.artifacts import read_parquet
from tests.support.toy_world import MEDIUM

CONFIG = """
experiment: toy
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
models: {{Pop: {{}}}}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    MEDIUM.write(folder)
    config = folder / "toy.yaml"
    config.write_text(CONFIG.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMKT_DATA_DIR", str(folder / "data"))
        done = CliRunner().invoke(app, ["split", "export", str(config), str(folder / "out")])
        assert done.exit_code == 0, done.output
        refused = CliRunner().invoke(app, ["split", "export", str(config), str(config)])
        assert refused.exit_code == 2
        assert "a file is where a folder is needed. Name another" in " ".join(
            refused.stderr.split()
        )
        assert set(done.stdout.split()) == set(map(str, (folder / "out").iterdir()))
        names = {name: name for name in ("title", "year", "genres")}
        dataset = {"name": "toy", "path": str(folder), **names}
        pipeline = Pipeline.model_validate(
            {"experiment": "toy", "dataset": dataset, "models": {"Pop": {}}}
        )
        yield folder / "out", pipeline, parts_of(pipeline)


def parts_of(pipeline):
    _, parts = recalled(pipeline)
    return {name: read_parquet(handle, [USER, ITEM]) for name, handle in parts}


def pairs(table) -> set[tuple[str, str]]:
    return set(zip(table[USER].to_pylist(), table[ITEM].to_pylist(), strict=True))


def test_tsv_is_the_same_split_as_files(exported):
    out, pipeline, parts = exported
    files = {part: str(out / f"{part}.tsv") for part in parts}
    again = parts_of(
        Pipeline.model_validate(pipeline.model_dump() | {"split": {"strategy": "files", **files}})
    )
    assert split_digest(*again.values()) == split_digest(*parts.values())


def test_pickles_are_matrices_with_their_ids_beside_them(exported):
    out, _, parts = exported
    users, items = ((out / f"{n}.tsv").read_text().split()[1:] for n in ("users", "items"))
    for part, name in (("train", "trn"), ("valid", "val"), ("test", "tst")):
        file = out / f"{name}_mat.pkl"
        matrix = (pickle.loads(file.read_bytes()) != 0).astype(np.float32)  # as RLMRec does
        cells = sp.coo_matrix(matrix)
        assert cells.shape == (len(users), len(items))
        found = {(users[u], items[i]) for u, i in zip(cells.row, cells.col, strict=True)}
        assert found == pairs(parts[part])
        assert convert(file, out / f"{name}.parquet").rows == len(found)


def test_recbole_reads_its_atomic_files(exported):
    from recbole.data.dataset import Dataset

    from models.recommenders.recbole_adapter import config_class

    out, _, parts = exported
    (out / "toy").mkdir()
    for part in parts:
        (out / f"toy.{part}.inter").rename(out / "toy" / f"toy.{part}.inter")
    settings = {
        "data_path": str(out),
        "benchmark_filename": list(parts),
        "USER_ID_FIELD": USER,
        "ITEM_ID_FIELD": ITEM,
        "load_col": {"inter": [USER, ITEM]},
        "eval_args": {"order": "RO", "group_by": "user", "mode": "full"},
    }
    dataset = Dataset(config_class()("BPR", "toy", config_dict=settings))
    ids = [dataset.id2token(key, dataset.inter_feat[key]).tolist() for key in (USER, ITEM)]
    ends = np.cumsum(dataset.file_size_list)
    for part, start, end in zip(parts, [0, *ends], ends, strict=False):
        assert set(zip(ids[0][start:end], ids[1][start:end], strict=True)) == pairs(parts[part])
