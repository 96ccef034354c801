"""Checks of imported files: whose row is whose, and whether vectors are vectors.

Rows are numbered from 1 in messages, a file's header not counted.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import BadInput
from models.schemas import USER, noun

SHOWN = 10
"""How many ids a message lists."""


def rows_of_subjects(
    ids: pa.Array,
    subjects: pa.Array,
    source: str,
    section: str,
    unknown: Literal["error", "drop"],
    key: str = USER,
) -> tuple[NDArray[np.int64], int]:
    """Find the row of each user (item).

    Args:
        ids: the file's ids, string (rows,).
        subjects: the users (items) that the training part has, string (n,).
        source: the file's name, for messages.
        section: the section of the configuration that names the file, for messages.
        unknown: whether ids beyond `subjects` are an error or left out.
        key: `USER` or `ITEM`, for messages.

    Returns:
        int64 (n,): each subject's row, -1 where the file has none; and how many rows were
        left out as unknown.

    Raises:
        BadInput: for an empty id, ids that occur more than once, and unknown ones unless dropped.
    """
    empty = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(ids, ""), True)))
    if len(empty):
        raise BadInput(f"{source}, row {empty[0] + 1}: the {noun(key)} id is empty. Fill it in.")
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise BadInput(
            f"{source}: {len(repeated)} of {len(counts)} {noun(key)} ids occur more than "
            f"once: {listed(repeated)}. Keep one row per {noun(key)}."
        )
    unknown_ids = ids.filter(pc.invert(pc.is_in(ids, subjects)))
    if len(unknown_ids) and unknown == "error":
        raise BadInput(
            f"{source}: {len(unknown_ids)} of {len(ids)} {noun(key)} ids are not in the training "
            f"part: {listed(unknown_ids)}. Correct them (ids are raw tokens, 007 is not 7), "
            f"remove them, or set {section}.unknown_users to drop."
        )
    rows = pc.fill_null(pc.index_in(subjects, ids), -1)
    return np.asarray(rows, dtype=np.int64), len(unknown_ids)


def require_few_missing(
    missing: pa.Array, n: int, source: str, section: str, allowed: float, key: str = USER
) -> str | None:
    """Check how many of n users (items) the file leaves without anything.

    Returns:
        The text of a warning; None if nobody is missing.

    Raises:
        BadInput: if their share is above `allowed`.
    """
    if not len(missing):
        return None
    summary = (
        f"{source}: {len(missing)} of {n} {noun(key)}s ({len(missing) / n:.1%}) have nothing "
        f"in it: {listed(missing)}"
    )
    if len(missing) > allowed * n:
        raise BadInput(
            f"{summary}. Supply them, or raise {section}.max_missing, which is {allowed:.1%}."
        )
    return f"{summary}. They are left out of the transfer."


def listed(ids: pa.Array) -> str:
    """The first `SHOWN` ids, and a sign that there are more."""
    more = ", …" if len(ids) > SHOWN else ""
    return ", ".join(map(str, ids[:SHOWN].to_pylist())) + more


def matrix_of(
    rows: Sequence[Any], ids: pa.Array, source: str, key: str = USER
) -> NDArray[np.float32]:
    """Stack vectors, float32 (rows, width).

    Raises:
        BadInput: naming row and user (item) of the first vector that is no flat list of numbers,
            is of another width than the first, or has a value that is not finite.
    """
    if not len(rows):
        raise BadInput(f"{source}: there is no vector in it. Add some.")
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, refused below
            matrix = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        matrix = np.empty(0, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise BadInput(_odd_row(rows, ids, source, key))
    unusable = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(unusable):
        row = int(unusable[0])
        raise BadInput(
            f"{source}, row {row + 1} ({noun(key)} {ids[row]}): the vector has NaN or infinite "
            f"values, as have {len(unusable)} of {len(matrix)} rows. Mend or remove them."
        )
    return matrix


def _odd_row(rows: Sequence[Any], ids: pa.Array, source: str, key: str) -> str:
    """Which vector is in the way of a matrix."""
    first: int | None = None
    for number, (row, owner) in enumerate(zip(rows, ids.to_pylist(), strict=True), 1):
        place = f"{source}, row {number} ({noun(key)} {owner})"
        try:
            vector = np.asarray(row, dtype=np.float32)
        except (TypeError, ValueError):
            vector = np.empty((0, 0), dtype=np.float32)
        if vector.ndim != 1 or not vector.size:
            return f"{place}: this is no flat list of numbers. Correct it."
        first = first or len(vector)
        if len(vector) != first:
            return (
                f"{place}: the vector has width {len(vector)}, those before it have {first}. Take "
                "all from one text model."
            )
    return f"{source}: the vectors are no table of numbers. Save one row per id."
