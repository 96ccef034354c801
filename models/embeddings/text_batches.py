"""Profiles to vectors, the pure part: distinct texts, batches of like length, checked vectors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.arrow import Ints, Singles
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
    rows: Ints
    """int64 (n_subjects,): index of each subject's text in `distinct`."""
    key: str
    """`USER` or `ITEM`: whose profiles these are."""


def distinct_texts(profiles: pa.Table) -> Texts:
    """Collect the distinct texts of `profiles` (`profiles_schema`, with either key).

    A subject whose text is null or blank has no profile and is left out.
    """
    key = ITEM if ITEM in profiles.column_names else USER
    is_written = pc.not_equal(pc.utf8_trim_whitespace(profiles[TEXT]), "")
    written = profiles.filter(pc.fill_null(is_written, False)).combine_chunks()
    subjects = written[key].combine_chunks()
    encoded = written[TEXT].combine_chunks().dictionary_encode()
    rows = encoded.indices.to_numpy().astype(np.int64)
    first = np.unique(rows, return_index=True)[1]
    return Texts(
        encoded.dictionary.to_pylist(), subjects.take(first).to_pylist(), subjects, rows, key
    )


def batches(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.intp]]:
    """Yield indices of at most `size` texts of similar length, the longest texts first.

    Like lengths waste least on padding. Texts of one length keep their order, so that a resumed
    run forms the same batches: a text model's last bits depend on what else is in the batch.
    """
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    for start in range(0, len(lengths), size):
        yield longest_first[start : start + size]


def hashed(texts: Sequence[str], dimensions: int) -> Singles:
    """Embed without a language model: words and pairs of words counted, with signs, by their hash.

    The hashing trick (Weinberger et al. 2009, "Feature hashing for large scale multitask learning")
    knows that texts share words, not that words mean alike, and is cheap at any size. Equal texts
    give equal bits, whatever else is in the batch: float32 (n_texts, dimensions), rows of length 1,
    or of 0 for a text without words.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(n_features=dimensions, ngram_range=(1, 2), dtype=np.float32)
    return np.asarray(counts.transform(texts).toarray())


def checked(
    rows: Sequence[Any], owners: Sequence[str], width: int | None = None, key: str = USER
) -> Singles:
    """Stack a text model's answer for one batch, the texts of `owners`: float32 (n, width).

    Raises:
        BadInput: if there are more or fewer vectors than texts, or as `stacked`.
    """
    if len(rows) != len(owners):
        raise BadInput(f"embeddings: {len(owners)} texts were sent, {len(rows)} vectors came back.")
    return stacked(rows, lambda row: f"embeddings, {noun(key)} {owners[row]}", width)


def stacked(rows: Sequence[Any], name: Callable[[int], str], width: int | None = None) -> Singles:
    """Stack vectors, `width` wide or as wide as the first, into float32 (n, width).

    Raises:
        BadInput: naming, by `name(row)`, the first one that is no flat list of numbers, has another
            width or a value that is not finite.
    """
    matrix = _as_float32(rows)
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != (width or matrix.shape[1] or -1):
        raise BadInput(_odd_vector(rows, name, width))
    unusable = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(unusable):
        raise BadInput(
            f"{name(int(unusable[0]))}: the vector has NaN or infinite values, as have "
            f"{len(unusable)} of {len(rows)} vectors. Correct or remove them."
        )
    return matrix


def _odd_vector(rows: Sequence[Any], name: Callable[[int], str], width: int | None) -> str:
    for row, values in enumerate(rows):
        vector = _as_float32(values)
        if vector is None or vector.ndim != 1 or not vector.size:
            return f"{name(row)}: the vector is empty or not a flat list of numbers. Correct it."
        width = width or len(vector)
        if len(vector) != width:
            return (
                f"{name(row)}: the vector has width {len(vector)}, others have {width}. Use one "
                "text model for all vectors."
            )
    return "embeddings: there are no vectors. Supply at least one."


def _as_float32(values: Any) -> Singles | None:
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, refused later
            return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None


def to_table(subjects: pa.Array, column: str, matrix: Singles, key: str = USER) -> pa.Table:
    """Pair subjects with their vectors, float32 (n, width), as `vectors(column, width, key)`."""
    width = matrix.shape[1]
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
    fixed = pa.FixedSizeListArray.from_arrays(flat, width)
    schema = vectors(column, width, key)
    return pa.table([subjects, fixed.cast(schema.field(column).type)], schema=schema)


def to_matrix(column: pa.ChunkedArray) -> Singles:
    """Return the vectors of one column of `vectors(column, width)` as float32 (n, width)."""
    flat: Singles = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), column.type.list_size)
