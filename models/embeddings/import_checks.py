"""Checks of imported profiles and vectors: which row is whose, and how many are missing."""

from typing import Literal

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
        source: the file's name, for messages; rows are numbered from 1, its header not counted.
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
            f"once: {_listed(repeated)}. Keep one row per {noun(key)}."
        )
    strangers = ids.filter(pc.invert(pc.is_in(ids, subjects)))
    if len(strangers) and unknown == "error":
        raise BadInput(
            f"{source}: {len(strangers)} of {len(ids)} {noun(key)} ids are not in the training "
            f"part: {_listed(strangers)}. Correct them (ids are raw tokens, 007 is not 7), "
            f"remove them, or set {section}.unknown_users to drop."
        )
    rows = pc.fill_null(pc.index_in(subjects, ids), -1)
    return np.asarray(rows, dtype=np.int64), len(strangers)


def require_few_missing(
    missing: pa.Array, n: int, source: str, section: str, allowed: float, key: str = USER
) -> str | None:
    """Word a warning of how many of n users (items) the file leaves without anything.

    Raises:
        BadInput: if their share is above `allowed`.
    """
    if not len(missing):
        return None
    summary = (
        f"{source}: {len(missing)} of {n} {noun(key)}s ({len(missing) / n:.1%}) have nothing "
        f"in it: {_listed(missing)}"
    )
    if len(missing) > allowed * n:
        raise BadInput(
            f"{summary}; {section}.max_missing allows {allowed:.1%}. Supply them, or raise it."
        )
    return summary + "; they are left out of the transfer"


def _listed(ids: pa.Array) -> str:
    more = ", …" if len(ids) > SHOWN else ""
    return ", ".join(map(str, ids[:SHOWN].to_pylist())) + more
