"""The `import` provider: profiles and embeddings that were made elsewhere, checked and taken over.

Users and items are found by raw token. What a file does not have is masked out of the transfer
and counts against `max_missing`; provenance is `unknown` unless the file carries records that match
train.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.config import Profiles, Side
from models.embeddings.import_checks import require_few_missing, rows_of_subjects
from models.profiles.provenance import provenance_of
from models.profiles.user_history import HISTORY_COUNT, HISTORY_SHA256
from models.schemas import KEYS, LLM_CALLS, TEXT, noun, profiles_schema
from tasks.profiles.outputs import Profiled
from tasks.storage.artifacts import Handle, write_parquet
from tasks.storage.imported_files import read_profiles

ABSENT = "not in the imported file"
BLANK = "blank in the imported file"


def import_profiles(
    config: Profiles,
    imported: Handle,
    train: pa.Table,
    inputs: Mapping[str, Handle],
    side: Side = "users",
) -> Profiled:
    """Write `profiles_schema` from a file taken in by `take_in_profiles`.

    Args:
        config: the file's columns, and what to do with missing and unknown users.
        imported: the file.
        train: schema `INTERACTIONS`.
        inputs: what the artifact is recorded to come from.
        side: whose profiles they are.

    Raises:
        BadInput: for a file that cannot be read, unknown or repeated ids, too many missing users.
    """
    key, section = KEYS[side], "profiles" if side == "users" else "item_profiles"
    source = f"{section}.path {config.path}"
    table = read_profiles(imported, config.columns, source, side).combine_chunks()
    subjects = _subjects(train, key)
    rows, dropped = rows_of_subjects(
        table[key].combine_chunks(), subjects, source, section, config.unknown_users, key
    )
    _tell(source, dropped, key)
    taken = table.drop_columns([key]).take(pa.array(rows, mask=rows < 0))
    texts = pc.utf8_trim_whitespace(taken[TEXT].combine_chunks())
    texts = pc.if_else(pc.not_equal(texts, ""), texts, None)
    is_missing = pc.is_null(texts)
    warning = require_few_missing(
        subjects.filter(is_missing), len(subjects), source, section, config.max_missing, key
    )
    if warning:
        get_run_logger().warning("%s", warning)
    reasons = pc.if_else(is_missing, pa.array(np.where(rows < 0, ABSENT, BLANK)), None)
    result = _profiles(key, subjects, texts, reasons, taken)
    has_text = result.filter(pc.is_valid(result[TEXT]))
    inputs = {**inputs, "imported": imported}
    return Profiled(
        profiles=write_parquet("profiles", result, inputs, {"provider": "import"}),
        calls=write_parquet("profiles", LLM_CALLS.empty_table(), inputs, {"part": "calls"}),
        source="import",
        llm_model=None,
        prompt_hash=imported.sha256[:16],
        provenance=provenance_of(has_text, train, config.history, side),
        missing=texts.null_count,
        answers_cached=0,
        answers_paid=0,
        cost_usd=0.0,
    )


def _profiles(
    key: str, subjects: pa.Array, texts: pa.Array, reasons: pa.Array, taken: pa.Table
) -> pa.Table:
    """`profiles_schema`; `taken` has the histories' records, if the file had any."""
    schema = profiles_schema(key)
    nothing = {
        name: pa.nulls(len(subjects), schema.field(name).type)
        for name in (HISTORY_SHA256, HISTORY_COUNT)
    }
    columns = {
        **nothing,
        **{name: taken[name] for name in nothing if name in taken.column_names},
        key: subjects,
        TEXT: texts,
        "missing_reason": reasons,
        "profile_key": pa.array([_key(text) for text in texts.to_pylist()]),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _provenance(
    records: pa.Table | None, rows: NDArray[np.int64], interactions: pa.Table, side: Side
) -> Literal["train-only", "unknown"]:
    if records is None:
        return "unknown"
    return provenance_of(records.take(pa.array(rows)), interactions, None, side)


def _subjects(train: pa.Table, key: str) -> pa.Array:
    """The training part's users (items), sorted."""
    subjects = pc.unique(train[key])
    return subjects.take(pc.sort_indices(subjects))


def _tell(source: str, dropped: int, key: str) -> None:
    if dropped:
        get_run_logger().warning("%s: %d unknown %ss dropped", source, dropped, noun(key))


def _key(text: str | None) -> str:
    return hashlib.sha256(json.dumps(["import", text]).encode()).hexdigest()
