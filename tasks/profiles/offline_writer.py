"""The provider `offline`: profiles from statistics of the training part, without an LLM."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from models.profiles import item_profiles
from models.profiles.offline_writer import WRITER, offline
from models.profiles.population import Population
from models.profiles.provenance import record, record_of_items
from models.profiles.user_history import describe, presentable, select, whole
from models.schemas import ITEM, KEYS, TEXT, USER, profiles_schema
from tasks.profiles.outputs import Profiled
from tasks.profiles.request import Basis, Request, no_calls, profile_rows, prompt_hash, sha256_of
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import read_parquet, write_batches


def basis(request: Request) -> Basis:
    """Statistics cost nothing, so they are of the whole history, not of a prompt's share."""
    return Basis(whole(request.config.history), WRITER)


def write(request: Request) -> Profiled:
    """Write profiles; of users' interactions, one batch of users is in memory at a time."""
    writer = WRITER if request.side == "users" else item_profiles.WRITER
    tables = _users(request) if request.side == "users" else _items(request)
    schema = profiles_schema(KEYS[request.side])
    facts = {"writer": writer, "history": "all training interactions"}
    return Profiled(
        profiles=write_batches("profiles", schema, tables, request.inputs, facts),
        calls=no_calls(request.inputs),
        source="offline",
        prompt_hash=prompt_hash(writer),
        provenance=request.config.provenance,
    )


def _users(request: Request) -> Iterator[pa.Table]:
    stream, catalogue = Stream.of(request.train), presentable(read_parquet(request.items))
    policy, kept = whole(request.config.history), pa.array(request.kept, pa.string())
    population = Population.streamed(stream.by_user, catalogue, policy)
    for table in stream.by_user():
        table = table.filter(pc.invert(pc.is_in(table[USER], kept)))
        if table.num_rows:
            history = describe(select(table, policy, population.fill), catalogue)
            yield _rows(request, record(table), offline(history, population)[TEXT], WRITER)


def _items(request: Request) -> Iterator[pa.Table]:
    train = read_parquet(request.train)
    history, items = request.config.history, read_parquet(request.items)
    known = item_profiles.subjects(train, items, history.limit, history.feedback == "counts")
    texts = pa.chunked_array([item_profiles.offline(known)], pa.string())
    alone = known.described[ITEM].combine_chunks() if request.config.sees_nothing else None
    seen = record_of_items(train, alone)
    yield _rows(request, seen, texts, item_profiles.WRITER)


def _rows(request: Request, seen: pa.Table, texts: pa.ChunkedArray, writer: str) -> pa.Table:
    keys = [sha256_of([writer, text]) for text in texts.to_pylist()]
    return profile_rows(request.side, seen, texts, pa.nulls(len(keys), pa.string()), keys)
