"""The `import` provider: profiles and embeddings that were made elsewhere, checked and taken over.

Users and items are found by raw token. What a file does not have is masked out of the transfer
and counts against `max_missing`; provenance is `unknown` unless the file carries records that match
train.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import distinct
from models.profiles.provenance import provenance_of
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, KEYS, TEXT
from tasks.profiles.outputs import Profiled
from tasks.profiles.request import Basis, Request, no_calls, profile_rows, sha256_of
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.storage.imported_files import matched_rows, read_profiles, require_few_missing

ABSENT = "not in the imported file"
BLANK = "blank in the imported file"


def basis(_: Request) -> Basis | None:
    """What imported texts were written from is not known."""
    return None


def write(request: Request) -> Profiled:
    """Write the profiles of the file of `profile_file`.

    Raises:
        BadInput: for a file that cannot be read, unknown or repeated ids, too many missing users.
    """
    config, side, imported, inputs = request.config, request.side, request.imported, request.inputs
    assert imported is not None
    train = read_parquet(request.train)
    key = KEYS[side]
    source = f"{'profiles' if side == 'users' else 'item_profiles'}.path {config.path}"
    table = read_profiles(imported, config.columns, source, side).combine_chunks()
    subjects = distinct(train[key])
    rows = matched_rows(table[key].combine_chunks(), subjects, source, config, side)
    taken = table.drop_columns([key]).take(pa.array(rows, mask=rows < 0))
    texts = pc.utf8_trim_whitespace(taken[TEXT].combine_chunks())
    texts = pc.if_else(pc.not_equal(texts, ""), texts, None)
    is_missing = pc.is_null(texts)
    require_few_missing(subjects.filter(is_missing), len(subjects), source, config, side)
    reasons = pc.if_else(is_missing, pa.array(np.where(rows < 0, ABSENT, BLANK)), None)
    nothing = {HISTORY_SHA256: pa.nulls(len(subjects), pa.string())}
    nothing[HISTORY_COUNT] = pa.nulls(len(subjects), pa.int32())
    columns = {name: taken[name] for name in nothing if name in taken.column_names}
    seen = pa.table({key: subjects, **nothing, **columns})
    keys = [sha256_of(["import", text]) for text in texts.to_pylist()]
    table = profile_rows(side, seen, texts, reasons, keys)
    has_text = table.filter(pc.is_valid(table[TEXT]))
    return Profiled(
        profiles=write_parquet("profiles", table, inputs, {"provider": "import"}),
        calls=no_calls(inputs),
        source="import",
        prompt_hash=imported.sha256[:16],
        provenance=provenance_of(has_text, train, config.history, side),
        missing=texts.null_count,
    )
