"""A split as files for other programs, so that what they train can be judged here."""

import pickle
from pathlib import Path

import duckdb
import numpy as np
from scipy.sparse import coo_matrix

from models.arrow import positions
from models.config import Pipeline
from models.schemas import ITEM, USER
from tasks.inspection.current_profiles import recalled
from tasks.storage.artifacts import read_parquet
from tasks.storage.sql_scripts import script

_MATRICES = {"train": "trn_mat.pkl", "valid": "val_mat.pkl", "test": "tst_mat.pkl"}


def export(pipeline: Pipeline, folder: Path) -> list[Path]:
    """Write each part as TSV, as RecBole's atomic file and as the pickle that RLMRec reads.

    A matrix is float32 (n_users, n_items) with ones; its rows and columns are the ids in
    `users.tsv` and `items.tsv`.
    """
    data, parts = recalled(pipeline)
    tables = {name: read_parquet(handle) for name, handle in parts}
    users, items = read_parquet(data.users), read_parquet(data.items)
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        for name, table in {**tables, "users": users, "items": items}.items():
            connection.register(name, table)
        names = {"folder": folder, "name": pipeline.dataset.name.replace("/", "-")}
        quoted = {name: str(text).replace("'", "''") for name, text in names.items()}
        connection.execute(script("inspection/export_split").format(**quoted))
    ids = users[USER].combine_chunks(), items[ITEM].combine_chunks()
    for part, name in _MATRICES.items():
        cells = positions(tables[part][USER], ids[0]), positions(tables[part][ITEM], ids[1])
        ones = np.ones(tables[part].num_rows, np.float32)
        matrix = coo_matrix((ones, cells), shape=(len(ids[0]), len(ids[1])))
        (folder / name).write_bytes(pickle.dumps(matrix))
    return sorted(folder.iterdir())
