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
from pydantic import BaseModel
from scipy import sparse

from models.errors import BadInput
from models.schemas import EMBEDDING, ITEM, RATING, TEXT, USER

_NUMPY = {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer"}
_SPARSE = {f"{kind}_{form}" for kind in ("coo", "csr", "csc") for form in ("matrix", "array")}
_TEXTS = ("profile", "text", "summary")


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
    try:
        with source.open("rb") as file:
            held = _Admitting(file).load()
    except Exception as error:  # damaged pickles raise anything
        reason = str(error) or type(error).__name__
        raise BadInput(
            f"{source}: this pickle is not read: {reason}. Save arrays, sparse matrices, or "
            "mappings of texts alone."
        ) from error
    kind, table = _table(held, key, source)
    pq.write_table(table, output)
    return Converted(path=output, kind=kind, rows=table.num_rows)


def _table(held: Any, key: str, source: Path) -> tuple[str, pa.Table]:
    if sparse.issparse(held):
        cells = held.tocoo()
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
