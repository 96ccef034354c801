"""Profiles without an LLM, and the form that all profiles are stored in."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from models.config import Profiles, Side
from models.profiles import item_profiles
from models.profiles.offline_writer import WRITER, offline
from models.profiles.population import Population
from models.profiles.user_history import (
    describe,
    histories,
    presentable,
    provenance,
    record,
    select,
)
from models.schemas import LLM_CALLS, TEXT, USER, profiles_schema
from tasks.profiles.outputs import Profiled, Provenance
from tasks.profiles.subjects import Subjects, prompt_hash, rows_of, sha256_of
from tasks.storage.artifact_batches import Stream, record_batches
from tasks.storage.artifacts import Handle, read_parquet, write_batches, write_parquet

_HISTORY = "all training interactions"


def texts_in_memory(
    config: Profiles, train: pa.Table, catalogue: pa.Table, side: Side
) -> tuple[list[str], str]:
    """The texts, in sorted order of their subjects, and their writer."""
    if side == "items":
        known = item_profiles.subjects(train, catalogue, config.history.limit)
        return item_profiles.offline(known), item_profiles.WRITER
    whole = config.history.model_copy(update={"limit": max(train.num_rows, 1)})
    return offline(histories(train, catalogue, whole))[TEXT].to_pylist(), WRITER


def write_in_memory(
    subjects: Subjects, texts: list[str], writer: str, inputs: Mapping[str, Handle]
) -> Profiled:
    """Write texts that are there; in the order of the subjects."""
    table = _offline_rows(subjects, pa.array(texts, pa.string()), writer)
    facts = {"writer": writer, "history": _HISTORY}
    written = write_parquet("profiles", table, inputs, facts)
    return _profiled(written, writer, provenance(table, subjects.seen), inputs)


def write_of_users(config: Profiles, train: Handle, items: Handle) -> Profiled:
    """Write users' profiles batch by batch: of interactions, one batch at a time is in memory.

    Args:
        config: the order of interactions, which decides between equals.
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
    """
    stream, catalogue = Stream.of(train), presentable(read_parquet(items))
    population = Population.streamed(stream.by_user, catalogue, config.history)
    proofs = set[Provenance]()

    def tables() -> Iterator[pa.Table]:
        for table in stream.by_user():
            whole = config.history.model_copy(update={"limit": max(table.num_rows, 1)})
            history = describe(select(table, whole, population.fill), catalogue)
            text = offline(history, population)[TEXT].combine_chunks()
            subjects = Subjects(USER, record(table))
            rows = _offline_rows(subjects, text, WRITER)
            proofs.add(provenance(rows, subjects.seen))
            yield rows

    inputs, facts = {"train": train, "items": items}, {"writer": WRITER, "history": _HISTORY}
    written = write_batches(
        "profiles", profiles_schema(USER), record_batches(tables()), inputs, facts
    )
    return _profiled(
        written, WRITER, "train-only" if proofs <= {"train-only"} else "unknown", inputs
    )


def _offline_rows(subjects: Subjects, texts: pa.Array, writer: str) -> pa.Table:
    keys = [sha256_of([writer, text]) for text in texts.to_pylist()]
    return rows_of(subjects, texts, pa.nulls(len(keys), pa.string()), keys)


def _profiled(
    written: Handle, writer: str, proof: Provenance, inputs: Mapping[str, Handle]
) -> Profiled:
    return Profiled(
        profiles=written,
        calls=write_parquet("profiles", LLM_CALLS.empty_table(), inputs, {"part": "calls"}),
        source="offline",
        llm_model=None,
        prompt_hash=prompt_hash(writer),
        provenance=proof,
        missing=0,
        answers_cached=0,
        answers_paid=0,
        cost_usd=0.0,
    )
