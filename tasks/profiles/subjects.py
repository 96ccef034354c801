"""The users or items that profiles are written for."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from models.config import Profiles, Side
from models.profiles import item_profiles
from models.profiles.user_history import HISTORY_COUNT, HISTORY_SHA256, record
from models.schemas import ITEM, USER, profiles_schema
from tasks.profiles.history_batches import Histories
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle, read_parquet


@dataclass(frozen=True)
class Subjects:
    """Whose profiles are written: their column, and the record of what each may see, sorted."""

    key: str
    seen: pa.Table


def rows_of(subjects: Subjects, texts: pa.Array, reasons: pa.Array, keys: list[str]) -> pa.Table:
    """`profiles_schema`; texts, reasons and keys are in the order of the subjects."""
    seen, schema = subjects.seen, profiles_schema(subjects.key)
    columns = [seen[subjects.key], texts, reasons, seen[HISTORY_SHA256], seen[HISTORY_COUNT], keys]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def sha256_of(value: Any) -> str:
    """Of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def prompt_hash(text: str) -> str:
    """First 16 hex digits of a template's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _subjects(config: Profiles, train: Handle, side: Side) -> Subjects:
    if side == "items":
        return Subjects(ITEM, item_profiles.record(read_parquet(train)))
    # Statistics cost nothing, so they are taken of the whole history, not of a prompt's share.
    if not config.asks:
        return Subjects(USER, record(read_parquet(train)))
    return Subjects(USER, Histories(Stream.of(train), config.history).records())
