"""Operations on Arrow columns that several stages share, some of them to sparse matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.schemas import ITEM, USER

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Strings: TypeAlias = "Sequence[str] | pa.Array | pa.ChunkedArray"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
"""Arrays by the kind of their values, of any shape."""


def codes(column: pa.ChunkedArray) -> Ints:
    """Number the values of a string column in sorted order: int64 (rows,)."""
    encoded = flat(column).dictionary_encode()
    rank = np.empty(len(encoded.dictionary), dtype=np.int64)
    rank[np.asarray(pc.sort_indices(encoded.dictionary))] = np.arange(len(rank))
    return np.asarray(rank[np.asarray(encoded.indices)])


def positions(values: pa.Array | pa.ChunkedArray, known: pa.Array) -> Ints:
    """Find each value in `known`: int64 (n,), -1 where it is not there."""
    return np.asarray(pc.fill_null(pc.index_in(values, known), -1), dtype=np.int64)


def strings(values: Strings) -> pa.ChunkedArray:
    """A list, array or chunked array of strings as chunks with 64-bit offsets."""
    if isinstance(values, pa.ChunkedArray):
        return values.cast(pa.large_string())
    return pa.chunked_array([pa.array(values, pa.large_string())])


def numbered(values: Strings, more: Strings) -> tuple[Ints, pa.Array]:
    """Number `values` as they appear: int64 (n,), and what each number stands for, then `more`.

    Chunks that are dictionary-encoded, by one dictionary in that order, save memory.
    """
    is_encoded = isinstance(values, pa.ChunkedArray) and pa.types.is_dictionary(values.type)
    encoded: pa.ChunkedArray = values if is_encoded else strings(values).dictionary_encode()
    words = [part.dictionary.cast(pa.large_string()) for part in encoded.chunks[:1]]
    numbers = [np.asarray(part.indices, dtype=np.int64) for part in encoded.chunks]
    stood_for = pc.unique(pa.chunked_array([*words, *strings(more).chunks], pa.large_string()))
    return np.concatenate([np.empty(0, np.int64), *numbers]), stood_for


def distinct(column: pa.ChunkedArray) -> pa.Array:
    """Return the values of a string column in sorted order, each once."""
    values = pc.unique(column)
    return values.take(pc.sort_indices(values))


def incidence(pairs: pa.Table, users: pa.Array, items: pa.Array) -> "csr_matrix":
    """Ones where a user has an item, by the columns of ids in `pairs`: (n_users, n_items)."""
    from scipy.sparse import csr_matrix  # the configuration imports this file

    rows, columns = positions(pairs[USER], users), positions(pairs[ITEM], items)
    inside = (rows >= 0) & (columns >= 0)
    marks = np.ones(int(inside.sum())), (rows[inside], columns[inside])
    return csr_matrix(marks, shape=(len(users), len(items)))


def words(rows: pa.Table, column: str) -> tuple["csr_matrix", list[str]]:
    """Ones where a row's list has a word, (n_rows, n_words), and the words; none if no column."""
    from scipy.sparse import csr_matrix

    if column not in rows.column_names:
        return csr_matrix((rows.num_rows, 0)), []
    lists = flat(rows[column])
    encoded = lists.flatten().dictionary_encode()
    owners, names = np.asarray(pc.list_parent_indices(lists)), encoded.dictionary.to_pylist()
    marks = np.ones(len(owners)), (owners, np.asarray(encoded.indices))
    return csr_matrix(marks, shape=(rows.num_rows, len(names))), names


def user_offsets(grouped: pa.Table) -> tuple[pa.Array, Ints]:
    """The users of a table grouped by user, and where each one's rows begin: int64 (users + 1,)."""
    users = flat(grouped[USER]).dictionary_encode()
    starts = np.searchsorted(np.asarray(users.indices), np.arange(len(users.dictionary) + 1))
    return users.dictionary, starts.astype(np.int64)


def flat(column: pa.ChunkedArray) -> pa.Array:
    """One contiguous array; strings get 64-bit offsets, so that their size has no limit."""
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def joined(offsets: Ints, texts: pa.Array, separator: str) -> pa.Array:
    """Join runs of `texts` (no nulls among them): strings, (len(offsets) - 1,)."""
    lists = pa.LargeListArray.from_arrays(offsets, texts)
    return pc.binary_join(lists, pa.scalar(separator, texts.type))
