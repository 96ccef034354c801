"""New interactions folded into a data set: the newest of each user and item stays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.arrow import Floats, Ints, codes
from models.schemas import ITEM, RATING, TIMESTAMP, USER


@dataclass(frozen=True)
class Fold:
    """Interactions, one per pair, sorted by user and item; numbers of new and of newer pairs."""

    interactions: pa.Table
    new: int
    updated: int


def fold(base: pa.Table, drops: list[pa.Table]) -> Fold:
    """Add interactions to a data set; the newest of each pair stays, of equally new ones the last.

    All have the schema `INTERACTIONS`; `base` has each pair once, `drops` have pairs in any order
    and number. An interaction without a time is older than any with one.
    """
    rows = pa.concat_tables([base, *drops]).combine_chunks()
    position = np.arange(rows.num_rows)
    pair = _pairs(rows)
    time = rows[TIMESTAMP].fill_null(-1).to_numpy()
    order = np.lexsort((position, time, pair))
    ordered = pair[order]
    last = order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
    older = np.full(len(last), -1)
    older[pair[: base.num_rows]] = position[: base.num_rows]
    known = older >= 0
    kept, before = rows.take(pa.array(last[known])), rows.take(pa.array(older[known]))
    same = _values_of(kept) == _values_of(before)
    return Fold(rows.take(pa.array(last)), int((~known).sum()), int((~same.all(axis=0)).sum()))


def _pairs(rows: pa.Table) -> Ints:
    """Number the user-item pairs in sorted order: int64 (rows,)."""
    users, items = codes(rows[USER]), codes(rows[ITEM])
    combined = users * (int(items.max(initial=0)) + 1) + items
    numbers: Ints = np.unique(combined, return_inverse=True)[1]
    return numbers


def _values_of(rows: pa.Table) -> Floats:
    """Rating and time, float64 (2, rows), -1e300 for missing ones."""
    columns = (rows[name].cast(pa.float64()).fill_null(-1e300) for name in (RATING, TIMESTAMP))
    return np.stack([np.asarray(column) for column in columns])
