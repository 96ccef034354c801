"""Embeddings from a user's file."""

import pyarrow as pa
from prefect.logging import get_run_logger

from models.arrow import distinct
from models.config import Embeddings, Side
from models.embeddings.import_checks import require_few_missing, rows_of_subjects
from models.embeddings.text_batches import stacked, to_table
from models.profiles.provenance import provenance_of
from models.schemas import EMBEDDING, KEYS, noun
from tasks.embeddings.outputs import Embedded
from tasks.profiles.profile_import import warn_dropped
from tasks.storage.artifacts import Handle, read_parquet, write_parquet
from tasks.storage.imported_files import read_vectors


def import_embeddings(
    config: Embeddings, files: dict[str, Handle], train: Handle, side: Side = "users"
) -> Embedded:
    """Write `vectors("embedding", width)` from files that `vector_files` returned.

    Args:
        config: the file's columns, and what to do with missing and unknown users.
        files: the raw artifacts `vectors` and, for bare matrices, `ids`.
        train: schema `INTERACTIONS`.
        side: whose vectors they are.

    Raises:
        BadInput: for a file that cannot be read, unknown or repeated ids, too many missing users,
            vectors of mixed width or with values that are not finite.
    """
    key, section = KEYS[side], "embeddings" if side == "users" else "item_embeddings"
    source, interactions = f"{section}.path {config.path}", read_parquet(train)
    ids, vectors, records = read_vectors(files, config.columns, source, side)
    matrix = stacked(vectors, lambda row: f"{source}, row {row + 1} ({noun(key)} {ids[row]})")
    subjects = distinct(interactions[key])
    rows, dropped = rows_of_subjects(ids, subjects, source, section, config.unknown_users, key)
    warn_dropped(source, dropped, key)
    has_vector = rows >= 0
    missing = subjects.filter(pa.array(~has_vector))
    warning = require_few_missing(missing, len(subjects), source, section, config.max_missing, key)
    if warning:
        get_run_logger().warning("%s", warning)
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
        texts_cached=0,
        texts_embedded=0,
        missing=len(missing),
        provenance=provenance_of(records, interactions, None, side),
    )
