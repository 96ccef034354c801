"""Embeddings from a user's file."""

import pyarrow as pa

from models.arrow import distinct
from models.config import Embeddings, Side
from models.embeddings.text_batches import stacked, to_table
from models.profiles.provenance import provenance_of
from models.schemas import EMBEDDING, KEYS, noun
from tasks.embeddings.outputs import Embedded
from tasks.storage.artifacts import Handle, read_parquet, write_parquet
from tasks.storage.imported_files import matched_rows, read_vectors, require_few_missing


def import_embeddings(
    config: Embeddings, files: dict[str, Handle], train: Handle, side: Side = "users"
) -> Embedded:
    """Write `vectors("embedding", width)` from the `vector_files`, for those in `train`.

    Raises:
        BadInput: for a file that cannot be read, unknown or repeated ids, too many missing users,
            vectors of mixed width or with values that are not finite.
    """
    key, interactions = KEYS[side], read_parquet(train)
    source = f"{'embeddings' if side == 'users' else 'item_embeddings'}.path {config.path}"
    ids, vectors, records = read_vectors(files, config.columns, source, side)
    matrix = stacked(vectors, lambda row: f"{source}, row {row + 1} ({noun(key)} {ids[row]})")
    subjects = distinct(interactions[key])
    rows = matched_rows(ids, subjects, source, config, side)
    has_vector = rows >= 0
    missing = subjects.filter(pa.array(~has_vector))
    require_few_missing(missing, len(subjects), source, config, side)
    kept = subjects.filter(pa.array(has_vector))
    if records is not None:
        records = records.take(pa.array(rows[has_vector]))
    table = to_table(kept, EMBEDDING, matrix[rows[has_vector]], key)
    return Embedded(
        embeddings=write_parquet(
            "embeddings", table, {**files, "train": train}, {"provider": "import"}
        ),
        model=f"imported {files['vectors'].sha256[:16]}",
        width=matrix.shape[1],
        missing=len(missing),
        provenance=provenance_of(records, interactions, None, side),
    )
