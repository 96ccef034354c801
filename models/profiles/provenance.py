"""Provenance of imported profiles."""

from typing import Literal

import pyarrow as pa

from models.config import History, Side
from models.profiles import item_profiles
from models.profiles.user_history import provenance, record, select
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, KEYS, TEXT


def provenance_of(
    records: pa.Table, train: pa.Table, history: History | None, side: Side = "users"
) -> Literal["train-only", "unknown"]:
    """Whether what was imported proves that it saw training interactions only.

    Args:
        records: `user_id` (`item_id`), `history_sha256`, `history_count` as the file has them
            (null or no column where it does not); only rows of those who have something.
        train: schema `INTERACTIONS`.
        history: the policy under which the profiles may have been written; the whole training
            history is always accepted.
        side: whose profiles they are.
    """
    if not {HISTORY_SHA256, HISTORY_COUNT} <= set(records.column_names):
        return "unknown"
    key = KEYS[side]
    claimed = records.select([key, HISTORY_SHA256, HISTORY_COUNT])
    claimed = claimed.append_column(TEXT, records[key])
    if side == "items":
        return provenance(claimed, item_profiles.record(train))
    if provenance(claimed, record(train)) == "train-only":
        return "train-only"
    return provenance(claimed, record(select(train, history))) if history else "unknown"
