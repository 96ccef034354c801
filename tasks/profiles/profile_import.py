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
from tasks.config.prompt_file import SECTIONS
from tasks.profiles.outputs import Profiled, Provenance
from tasks.profiles.request import Request, no_calls, profile_rows, sha256_of
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.storage.imported_files import matched_rows, read_profiles, require_few_missing

ABSENT = "not in the imported file"
BLANK = "blank in the imported file"
REFUSED = "refused"


def write(request: Request) -> Profiled:
    """Write the profiles of a `profile_file`; for errors see `read_profiles` and `take_over`."""
    config, side = request.config, request.side
    assert request.imported is not None
    source = f"{SECTIONS[side]}.path {config.path}"
    return take_over(request, read_profiles(request.imported, config.columns, source, side), source)


def take_over(
    request: Request,
    given: pa.Table,
    source: str,
    refused: pa.ChunkedArray | None = None,
    known: pa.Array | None = None,
    hint: str = "",
    provenance: Provenance | None = None,
) -> Profiled:
    """Make profiles of texts that were written elsewhere, `given` as `read_profiles` returns them.

    `source` is the configuration's key and the file, for messages; `refused`, string (rows,), says
    why a text does not count and is null where it does. `known` are sorted ids that may stand in
    the file (None: those of the training part): where its texts are known to have seen no
    interaction, each of them is a subject. `provenance` is that of the texts that count; None
    judges it by their records. `hint` is for the message about too many missing; BadInput as
    `write`.
    """
    config, side, imported, inputs = request.config, request.side, request.imported, request.inputs
    assert imported is not None
    train = read_parquet(request.train)
    key = KEYS[side]
    subjects = distinct(train[key])
    if known is not None and provenance == "none seen":
        subjects = known
    given = given.append_column(
        REFUSED, pa.nulls(len(given), pa.string()) if refused is None else refused
    )
    if known is not None:
        is_extra = pc.and_not(pc.is_in(given[key], known), pc.is_in(given[key], subjects))
        given = given.filter(pc.invert(is_extra))
    given = given.combine_chunks()
    rows = matched_rows(given[key].combine_chunks(), subjects, source, config, side)
    taken = given.drop_columns([key]).take(pa.array(rows, mask=rows < 0))
    texts = pc.utf8_trim_whitespace(taken[TEXT].combine_chunks())
    refusals = taken[REFUSED].combine_chunks()
    texts = pc.if_else(pc.and_(pc.not_equal(texts, ""), pc.is_null(refusals)), texts, None)
    is_missing = pc.is_null(texts)
    reasons = pc.coalesce(refusals, pa.array(np.where(rows < 0, ABSENT, BLANK)))
    reasons = pc.if_else(is_missing, reasons, None)
    require_few_missing(subjects.filter(is_missing), len(subjects), source, config, side, hint)
    nothing = {HISTORY_SHA256: pa.nulls(len(subjects), pa.string())}
    nothing[HISTORY_COUNT] = pa.nulls(len(subjects), pa.int32())
    columns = {name: taken[name] for name in nothing if name in taken.column_names}
    seen = pa.table({key: subjects, **nothing, **columns})
    keys = [sha256_of(["import", text]) for text in texts.to_pylist()]
    table = profile_rows(side, seen, texts, reasons, keys)
    if provenance is None:
        has_text = table.filter(pc.is_valid(table[TEXT]))
        provenance = provenance_of(has_text, train, config.history, side)
    return Profiled(
        profiles=write_parquet("profiles", table, inputs, {"provider": config.provider}),
        calls=no_calls(inputs),
        source=config.provider,
        prompt_hash=imported.sha256[:16],
        provenance=provenance,
        missing=texts.null_count,
    )
