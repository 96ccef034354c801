"""The record that proves which interactions a profile was written from.

The record (a hash and a count of the interactions seen) is what tells a leak-free profile from
one of unknown origin; it depends on the interactions alone, never on the order of rows.
"""

import hashlib
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Ints, codes, distinct, flat, joined, user_offsets
from models.config import History, Side
from models.profiles.user_history import select
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, ITEM, KEYS, RATING, TEXT, TIMESTAMP, USER


def record(selected: pa.Table) -> pa.Table:
    """Hash what each user's profile saw, `selected` of schema `INTERACTIONS`.

    Gives `user_id`, sorted, `history_sha256` (string) and `history_count` (int32): the sha256 of
    the lines `item TAB rating TAB timestamp`, sorted by item and joined by newlines, with missing
    values empty and ratings in their shortest decimal form.
    """
    order = np.lexsort((codes(selected[ITEM]), codes(selected[USER])))
    ordered = selected.take(pa.array(order)).combine_chunks()
    users, offsets = user_offsets(ordered)
    digests = _digests(offsets, lines_of(ordered, ITEM))
    return _records(USER, users, digests, np.diff(offsets).tolist())


def record_of_items(train: pa.Table, alone: pa.Array | None = None) -> pa.Table:
    r"""Hash what every item's profile saw: all of `train`, because companions come from all of it.

    Profiles of items `alone`, whose ids are given, saw no interaction. The hash is the sha256 of
    the lines `user TAB item TAB rating TAB timestamp`, sorted, as in `record`.

    Returns:
        `item_id` in sorted order, `history_sha256` (string), `history_count` (int32).
    """
    items = distinct(train[ITEM]) if alone is None else alone
    train = train if alone is None else train.slice(0, 0)
    lines = lines_of(train, USER, ITEM)
    digests = _digests(np.array([0, len(lines)]), lines.take(pc.sort_indices(lines)))
    return _records(ITEM, items, digests * len(items), [train.num_rows] * len(items))


def lines_of(interactions: pa.Table, *ids: str) -> pa.Array:
    """Join ids, rating and timestamp of each interaction by tabs; missing values are empty."""
    values = [interactions[name].cast(pa.string()) for name in (*ids, RATING, TIMESTAMP)]
    return flat(pc.binary_join_element_wise(*values, "\t", null_handling="replace"))


def _digests(offsets: Ints, lines: pa.Array) -> list[str]:
    texts = joined(offsets, lines, "\n").to_pylist()
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def _records(key: str, subjects: pa.Array, digests: list[str], counts: list[int]) -> pa.Table:
    hashes, numbers = pa.array(digests, pa.string()), pa.array(counts, pa.int32())
    return pa.table({key: subjects, HISTORY_SHA256: hashes, HISTORY_COUNT: numbers})


def provenance(profiles: pa.Table, expected: pa.Table) -> Literal["train-only", "unknown"]:
    """Return "train-only" if every text carries the `expected` record of its subject.

    Rows without text (`profiles_schema`) prove and disprove nothing.
    """
    written = profiles.filter(pc.is_valid(profiles[TEXT]))
    proved = pc.all(has_record(written, expected), min_count=0).as_py()
    return "train-only" if proved else "unknown"


def has_record(profiles: pa.Table, expected: pa.Table) -> pa.ChunkedArray:
    """Tell which profiles carry the `expected` record of their subject: bool (rows,)."""
    key = expected.column_names[0]
    row = pc.index_in(profiles[key], expected[key])
    same = [
        pc.fill_null(pc.equal(profiles[column], expected[column].take(row)), False)
        for column in (HISTORY_SHA256, HISTORY_COUNT)
    ]
    return pc.and_(*same)


def provenance_of(
    records: pa.Table | None, train: pa.Table, history: History | None, side: Side = "users"
) -> Literal["none seen", "train-only", "unknown"]:
    """Judge whether what was imported proves that it saw training interactions only.

    `records` holds `user_id` (`item_id`), `history_sha256` and `history_count` as the file has
    them, of subjects that have something. Beside what the policy `history` chooses, the whole
    training history is always accepted.
    """
    if records is None or not {HISTORY_SHA256, HISTORY_COUNT} <= set(records.column_names):
        return "unknown"
    key = KEYS[side]
    claimed = records.select([key, HISTORY_SHA256, HISTORY_COUNT])
    claimed = claimed.append_column(TEXT, records[key])
    if side == "items":
        if provenance(claimed, record_of_items(train, claimed[ITEM].combine_chunks())) == (
            "train-only"
        ):
            return "none seen"
        return provenance(claimed, record_of_items(train))
    if provenance(claimed, record(train)) == "train-only":
        return "train-only"
    return provenance(claimed, record(select(train, history))) if history else "unknown"
