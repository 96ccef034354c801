"""Profiles to vectors, the pure part: distinct texts, batches of like length, checked vectors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import BadInput
from models.schemas import ITEM, TEXT, USER, noun, vectors


@dataclass(frozen=True)
class Texts:
    """Every text once, and which text each subject, user or item, has."""

    distinct: list[str]
    owners: list[str]
    """For each distinct text the first subject that has it: the name of its row in messages."""
    subjects: pa.Array
    """Users or items with a text, in the order of the profiles."""
    rows: NDArray[np.int64]
    """int64 (n_users,): index of each subject's text in `distinct`."""
    key: str
    """`USER` or `ITEM`: whose profiles these are."""


def distinct_texts(profiles: pa.Table) -> Texts:
    """Collect the distinct texts of `profiles` (`profiles_schema`, with either key).

    A subject whose text is null or blank has no profile and is left out.

    Raises:
        BadInput: if nobody has a text.
    """
    key = ITEM if ITEM in profiles.column_names else USER
    written = profiles.filter(_is_written(profiles)).combine_chunks()
    if written.num_rows == 0:
        raise BadInput(f"profiles: no {noun(key)} has a text, so there is nothing to embed")
    subjects = written[key].combine_chunks()
    encoded = written[TEXT].combine_chunks().dictionary_encode()
    rows = encoded.indices.to_numpy().astype(np.int64)
    first = np.unique(rows, return_index=True)[1]
    return Texts(
        encoded.dictionary.to_pylist(), subjects.take(first).to_pylist(), subjects, rows, key
    )


def has_texts(profiles: pa.Table) -> bool:
    """Whether anybody in `profiles` has a text that `distinct_texts` would take."""
    return bool(pc.any(_is_written(profiles), min_count=0).as_py())


def _is_written(profiles: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(profiles[TEXT]), ""), False)


def batches(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.intp]]:
    """Yield indices of at most `size` texts of similar length, the longest texts first.

    Like lengths waste least on padding. Texts of one length keep their order, so that what is
    left after an interruption falls into the same batches: a text model's last bits depend on
    what else is in the batch.

    Args:
        lengths: each text's length as the text model counts it, in tokens where it is known.
        size: texts per batch.
    """
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    for start in range(0, len(lengths), size):
        yield longest_first[start : start + size]


def checked(
    rows: Sequence[Any], owners: Sequence[str], width: int | None = None, key: str = USER
) -> NDArray[np.float32]:
    """Stack a text model's answer for one batch into float32 (n, width).

    Args:
        rows: one vector per text.
        owners: the user or item whose profile each text is, for messages.
        width: the width of the vectors seen so far, if any.
        key: `USER` or `ITEM`, for messages.

    Raises:
        BadInput: if there are more or fewer vectors than texts, or naming the first one whose
            vector is no list of numbers, has another width or a value that is not finite.
    """
    if len(rows) != len(owners):
        raise BadInput(f"embeddings: {len(owners)} texts were sent, {len(rows)} vectors came back")
    matrix: list[NDArray[np.float32]] = []
    for row, owner in zip(rows, owners, strict=True):
        vector = _vector(row, f"{noun(key)} {owner}")
        width = width or len(vector)
        if len(vector) != width:
            raise BadInput(
                f"embeddings: the vector of {noun(key)} {owner} has width {len(vector)}, others "
                f"have {width}; embeddings.model must be one model with one width"
            )
        matrix.append(vector)
    return np.stack(matrix)


def _vector(row: Any, owner: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, refused below
            vector = np.asarray(row, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"embeddings: what came back for {owner} is not a list of numbers"
        ) from error
    if vector.ndim != 1 or vector.size == 0:
        raise BadInput(f"embeddings: the vector of {owner} is empty or not flat")
    if not np.isfinite(vector).all():
        raise BadInput(f"embeddings: the vector of {owner} has values that are not finite")
    return vector


def to_table(
    subjects: pa.Array, column: str, matrix: NDArray[np.float32], key: str = USER
) -> pa.Table:
    """Pair subjects with their vectors, float32 (n, width), as `vectors(column, width, key)`."""
    width = matrix.shape[1]
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, width)
    schema = vectors(column, width, key)
    return pa.table([subjects, fixed.cast(schema.field(column).type)], schema=schema)


def to_matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """The vectors of one column of `vectors(column, width)` as float32 (n_users, width)."""
    flat: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), column.type.list_size)
