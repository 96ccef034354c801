"""Pickles of others as plain files: the one place that reads a pickle, and no run comes here.

A pickle is a program. This reader admits arrays of NumPy and sparse matrices of SciPy, and the
plain containers that hold texts and numbers; whatever else a file names is refused, not called.
RLMRec publishes such files: `trn_mat.pkl` (a sparse matrix of users and items), `usr_emb_np.pkl`
(an array) and `usr_prf.pkl` (a mapping from id to profile).
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic import BaseModel
from scipy import sparse

from models.errors import BadInput
from models.schemas import EMBEDDING, ITEM, RATING, TEXT, USER

_NUMPY = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
_SPARSE = {f"{kind}_{form}" for kind in ("coo", "csr", "csc") for form in ("matrix", "array")}
_TEXTS = ("profile", "text", "summary")
_PUBLISHED = (
    ("trn_mat.pkl", "interactions", USER, "train.tsv"),
    ("val_mat.pkl", "interactions", USER, "valid.tsv"),
    ("tst_mat.pkl", "interactions", USER, "test.tsv"),
    ("usr_prf.pkl", "profiles", USER, "user_profiles.parquet"),
    ("itm_prf.pkl", "profiles", ITEM, "item_profiles.parquet"),
    ("usr_emb_np.pkl", "vectors", USER, "user_vectors.parquet"),
    ("itm_emb_np.pkl", "vectors", ITEM, "item_vectors.parquet"),
)
"""RLMRec's files: what each holds, of whom, and what it is called here."""


class Converted(BaseModel):
    """What a pickle held, and the file that holds it now."""

    path: Path
    kind: str
    rows: int


class _Admitting(pickle.Unpickler):
    """Refuses every name but those of arrays and sparse matrices."""

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        if (root == "numpy" and name in _NUMPY) or (
            module.startswith("scipy.sparse") and name in _SPARSE
        ):
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):  # bytes, as protocol 2 writes them
            return lambda text, _="latin1": text.encode("latin1")
        raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")


def convert(source: Path, output: Path, key: str = USER) -> Converted:
    """Write what a pickle holds as Parquet, ids being positions as text where it has none.

    A sparse matrix gives interactions, an array vectors, a mapping or a list texts; of the latter
    two, `key` says whose: `user_id` or `item_id`.

    Raises:
        BadInput: for a file that cannot be read, names what could run code, or holds something
            else.
    """
    if output.suffix != ".parquet":
        raise BadInput(f"{output}: the output is Parquet. Let its name end in .parquet.")
    kind, table = _table(_held(source), key, source)
    pq.write_table(table, output)
    return Converted(path=output, kind=kind, rows=table.num_rows)


def convert_folder(source: Path, output: Path) -> list[Converted]:
    """Write a data set as RLMRec publishes it (arXiv 2310.15950) as files that a run reads.

    `output` gets `train.tsv`, `valid.tsv` and `test.tsv` for `split.strategy: files`, their union
    `interactions.parquet`, and Parquet files of users' and items' profiles and vectors. Ids are
    rows and columns of the matrices, as text.

    Raises:
        BadInput: as `convert`; for a file that is missing, and for files that differ in the numbers
            of users or items. Nothing is written then.
    """
    absent = [name for name, *_ in _PUBLISHED if not (source / name).is_file()]
    if absent:
        raise BadInput(
            f"{source}: it lacks {', '.join(absent)}. Name a folder of RLMRec's unpacked data, "
            "such as RLMRec/data/yelp."
        )
    tables, shape = dict[str, pa.Table](), (0, 0)
    for name, kind, key, made in _PUBLISHED:
        held = _held(source / name)
        found, tables[made] = _table(held, key, source / name)
        if found != kind:
            raise BadInput(f"{source / name}: it holds {found}, not {kind}. Unpack it again.")
        shape = held.shape if name == "trn_mat.pkl" else shape
        _require_size(held, tables[made], shape, source / name)
    output.mkdir(parents=True, exist_ok=True)
    parts = [table for table in tables.values() if RATING in table.column_names]
    tables["interactions.parquet"] = pa.concat_tables(parts)
    return [_written(table, output / made) for made, table in tables.items()]


def _require_size(held: Any, table: pa.Table, shape: tuple[int, int], file: Path) -> None:
    """Refuse a matrix of another shape, or other ids than one for each of its rows (columns)."""
    if sparse.issparse(held):
        fits, size = held.shape == shape, f"is {held.shape[0]} × {held.shape[1]}"
    else:
        key = table.column_names[0]
        n = shape[0] if key == USER else shape[1]
        fits, size = {*table[key].to_pylist()} == {*map(str, range(n))}, f"has {len(held)} rows"
    if not fits:
        raise BadInput(
            f"{file}: it {size}, but trn_mat.pkl is {shape[0]} × {shape[1]} (users × items, "
            "numbered from 0). Take all files from one archive."
        )


def _written(table: pa.Table, path: Path) -> Converted:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        form = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
        csv.write_csv(table.select([USER, ITEM]), path, form)
    return Converted(path=path, kind=path.stem.replace("_", " "), rows=table.num_rows)


def _held(source: Path) -> Any:
    try:
        with source.open("rb") as file:
            return _Admitting(file).load()
    except Exception as error:  # damaged pickles raise anything
        reason = str(error) or type(error).__name__
        raise BadInput(
            f"{source}: this pickle is not read: {reason}. Save arrays, sparse matrices, or "
            "mappings of texts alone."
        ) from error


def _table(held: Any, key: str, source: Path) -> tuple[str, pa.Table]:
    if sparse.issparse(held):
        cells = sparse.csr_array(held)
        cells.eliminate_zeros()  # RLMRec, too, takes what is not 0
        cells = cells.tocoo()
        columns = {USER: _ids(cells.row), ITEM: _ids(cells.col)}
        return "interactions", pa.table(columns | {RATING: cells.data.astype(np.float32)})
    if isinstance(held, np.ndarray) and held.ndim == 2 and held.dtype.kind in "fiu":
        rows = list(held.astype(np.float32))
        return "vectors", pa.table({key: _ids(np.arange(len(held))), EMBEDDING: rows})
    if isinstance(held, list | tuple):
        held = dict(enumerate(held))
    texts = {str(k): _text(value) for k, value in held.items()} if isinstance(held, dict) else {}
    if not texts or None in texts.values():
        raise BadInput(
            f"{source}: it holds neither a sparse matrix, nor an array of two dimensions, nor one "
            f"text per id ({', '.join(_TEXTS)} in a mapping). Convert it by hand."
        )
    return "profiles", pa.table({key: list(texts), TEXT: list(texts.values())})


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = next((value[name] for name in _TEXTS if name in value), None)
    return value if isinstance(value, str) else None


def _ids(numbers: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(numbers).cast(pa.string())
