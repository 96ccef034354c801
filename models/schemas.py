"""Column names and Arrow schemas of every Parquet artifact: the one vocabulary.

Ids are raw tokens (strings) everywhere outside a model; `007` and `7` are two users.
"""

from collections.abc import Sequence

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

USER = "user_id"
ITEM = "item_id"
RATING = "rating"
TIMESTAMP = "timestamp"
TITLE = "title"
YEAR = "year"
GENRES = "genres"
FEATURES = "features"
TEXT = "text"
EMBEDDING = "embedding"
TARGET = "target"
VECTOR = "vector"
HISTORY_SHA256 = "history_sha256"
HISTORY_COUNT = "history_count"

INTERACTIONS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(RATING, pa.float32()),
        pa.field(TIMESTAMP, pa.int64()),
    ]
)
"""Grain: one user-item pair. `timestamp` in Unix seconds."""

ITEMS = pa.schema(
    [
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field(TITLE, pa.string()),
        pa.field(YEAR, pa.int32()),
        pa.field(GENRES, pa.list_(pa.string())),
    ]
)
"""Grain: one item of the catalogue, with or without metadata."""

USERS = pa.schema([pa.field(USER, pa.string(), nullable=False)])
"""Grain: one user with at least one interaction."""

DESCRIBED = pa.field(FEATURES, pa.list_(pa.string()))
"""The last column of `ITEMS` and `USERS` where further columns are configured: `column: value`."""


def demographics_schema(fields: Sequence[str]) -> pa.Schema:
    """Schema of what NAME.user says of users: one row per user, `fields` as they stand there."""
    return pa.schema(
        [
            pa.field(USER, pa.string(), nullable=False),
            *(pa.field(field, pa.string()) for field in fields),
        ]
    )


def profiles_schema(key: str) -> pa.Schema:
    """Schema of profiles of users (`key` is `USER`) or of items (`ITEM`): one row per subject."""
    return pa.schema(
        [
            pa.field(key, pa.string(), nullable=False),
            pa.field(TEXT, pa.string()),
            pa.field("missing_reason", pa.string()),
            pa.field("history_sha256", pa.string()),
            pa.field("history_count", pa.int32()),
            pa.field("profile_key", pa.string(), nullable=False),
        ]
    )


KEYS = {"users": USER, "items": ITEM}
"""The column of ids of either side."""


def noun(key: str) -> str:
    """`user` or `item`, of `USER` or `ITEM`, for messages."""
    return key.removesuffix("_id")


PROFILES = profiles_schema(USER)
"""Grain: one user. `text` is null where no profile could be made, with the reason beside it.
`history_sha256` and `history_count` record the interactions that the profile was written from."""

QUARANTINE = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("line", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Grain: one refused row of a file, or one refused drop (`row` and `line` null). `row` counts from
1: the lines of a text file, its header included, or the rows of a Parquet file."""

LLM_CALLS = pa.schema(
    [
        pa.field("profile_key", pa.string(), nullable=False),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("cost_usd", pa.float64()),
        pa.field("cached", pa.bool_(), nullable=False),
        pa.field("latency_seconds", pa.float64()),
        pa.field("finished_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Grain: one answer that a run used, paid for or served from the answer cache."""

PREDICTIONS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field("liked", pa.bool_(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
    ]
)
"""Grain: one held-out pair of a split; the model's probability that the user likes the item."""

RANKINGS = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field(USER, pa.string(), nullable=False),
        pa.field("items", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Grain: one user and split (`valid`: train items excluded; `test`: train and valid items
excluded): the best K items of the whole catalogue, best first."""

RECOMMENDATIONS = pa.schema(
    [
        pa.field(USER, pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field(ITEM, pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Grain: one user and rank, from 1; sorted by user and rank. Nothing that is known of the user is
recommended again. `source` is model, profile (foretold by the user's text) or popular."""


def vectors(column: str, width: int, key: str = USER) -> pa.Schema:
    """Schema of `embedding` and `target` tables: one row per `key`, `column` float32 (width,)."""
    return pa.schema(
        [
            pa.field(key, pa.string(), nullable=False),
            pa.field(column, pa.list_(pa.float32(), width), nullable=False),
        ]
    )


class Epoch(BaseModel):
    """One epoch of a training; losses are means over its batches, seconds include validation."""

    model_config = ConfigDict(frozen=True)

    phase: str
    epoch: int
    model_loss: float
    transfer_loss: float | None
    valid_score: float
    seconds: float
