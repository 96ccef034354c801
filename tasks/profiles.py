"""Stage *profiles*: one text per user or item, from statistics or an LLM, and what it cost."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models import item_profiles
from models.answers import response_format
from models.config import Profiles, Side
from models.front_matter import Template
from models.offline import WRITER, offline
from models.profiles import HISTORY_COUNT, HISTORY_SHA256, histories, provenance, record, select
from models.prompts import Messages, Prompt, render_all, render_items
from models.schemas import ITEM, LLM_CALLS, TEXT, USER, profiles_schema
from tasks.answers import AnswerStore, Question, answer_store, asking
from tasks.caching import stage
from tasks.chat import NOT_ASKED, Outcome
from tasks.crew import require_workers
from tasks.endpoint import endpoint
from tasks.handoffs import Previous, Profiled
from tasks.imports import import_profiles
from tasks.interview import Interview, show_bill
from tasks.kept_profiles import Earlier
from tasks.storage import Handle, read_parquet, write_parquet


@dataclass(frozen=True)
class _Subjects:
    """Whose profiles are written: their column, and the record of what each may see, sorted."""

    key: str
    seen: pa.Table


@stage("profiles", version=5)
def profiles(
    config: Profiles,
    prompt: Template | str,
    train: Handle,
    items: Handle,
    imported: Handle | None = None,
    side: Side = "users",
    demographics: Handle | None = None,
    previous: Previous | None = None,
) -> Profiled:
    """Write a profile for every user (item) of the training interactions.

    Args:
        config: provider, history policy and endpoint.
        prompt: the prompt template; not used offline.
        train: schema `INTERACTIONS`; what profiles are written from, which `config.interactions`
            may make more than the training part.
        items: schema `ITEMS`.
        imported: the file of the import provider, from `take_in_profiles`.
        side: users or items.
        demographics: what `history.demographics` names, if anything.
        previous: an earlier run's profiles of users, for those who have hardly changed.

    Raises:
        BadInput: for a faulty template, a missing key, an endpoint that cannot be reached or
            refuses, and too many users without an answer; the answers received are kept.
    """
    require_workers()  # a question that is paid for must not end in a run that cannot go on
    interactions, catalogue = read_parquet(train), read_parquet(items)
    inputs = {"train": train, "items": items}
    if imported is not None:
        return import_profiles(config, imported, interactions, inputs, side)
    subjects = _subjects(config, interactions, side)
    known = previous if side == "users" else None
    earlier = Earlier.of(config, [prompt, demographics], interactions, known)
    others = _Subjects(subjects.key, earlier.kept.others(subjects.seen))
    if config.provider == "offline":
        texts, writer = _offline(config, interactions, catalogue, side)
        of_others = earlier.kept.others(subjects.seen.append_column(TEXT, pa.array(texts)))
        written = _write_offline(others, of_others[TEXT].to_pylist(), writer, inputs)
    else:
        template = Prompt(prompt, config.prompt, side)
        if demographics is not None:
            inputs["demographics"] = demographics
        rendered = render(config, template, interactions, catalogue, side, demographics)
        asked = earlier.asking(config, subjects.seen.num_rows)
        written = _write_asked(asked, template, others, earlier.others(rendered), inputs)
    if side == "users":
        written = earlier.join(written, subjects.seen, train, inputs)
    # Profiles that were written from held-out interactions, too, prove nothing.
    leaky = config.interactions == "all"
    return written.model_copy(update={"provenance": "leaky"}) if leaky else written


def _subjects(config: Profiles, train: pa.Table, side: Side) -> _Subjects:
    if side == "items":
        return _Subjects(ITEM, item_profiles.record(train))
    # Statistics cost nothing, so they are taken of the whole history, not of a prompt's share.
    return _Subjects(USER, record(select(train, config.history) if config.asks else train))


def _offline(
    config: Profiles, train: pa.Table, catalogue: pa.Table, side: Side
) -> tuple[list[str], str]:
    """The texts, in sorted order of their subjects, and their writer."""
    if side == "items":
        known = item_profiles.subjects(train, catalogue, config.history.limit)
        return item_profiles.offline(known), item_profiles.WRITER
    whole = config.history.model_copy(update={"limit": max(train.num_rows, 1)})
    return offline(histories(train, catalogue, whole))[TEXT].to_pylist(), WRITER


def render(
    config: Profiles,
    template: Prompt,
    train: pa.Table,
    catalogue: pa.Table,
    side: Side,
    demographics: Handle | None = None,
) -> Iterator[tuple[str, Messages]]:
    """Every subject's id and prompt, in sorted order, as the stage asks them.

    Raises:
        BadInput: for a template that cannot be filled, or does not use what was asked for.
    """
    history = config.history
    if side == "items":
        known = item_profiles.subjects(train, catalogue, history.limit)
        return render_items(template, known, history)
    template.require_demographics(history.demographics)
    people = None if demographics is None else read_parquet(demographics)
    return render_all(template, select(train, history), catalogue, history, people)


def profiles_asked(
    config: Profiles,
    template: Prompt,
    train: Handle,
    items: Handle,
    side: Side,
    demographics: Handle | None,
    store: AnswerStore,
) -> pa.Table:
    """`profiles_schema` with the answers that are there; no text where none was asked for yet."""
    interactions = read_parquet(train)
    rendered = render(config, template, interactions, read_parquet(items), side, demographics)
    keys = store.want(questions(config, rendered))
    texts = pa.array(map(store.texts().get, keys), pa.string())
    nothing = pa.nulls(len(keys), pa.string())
    return _table(_subjects(config, interactions, side), texts, nothing, keys)


def _write_offline(
    subjects: _Subjects, texts: list[str], writer: str, inputs: Mapping[str, Handle]
) -> Profiled:
    keys = [_sha256([writer, text]) for text in texts]
    nothing = pa.nulls(len(keys), pa.string())
    table = _table(subjects, pa.array(texts, pa.string()), nothing, keys)
    facts = {"writer": writer, "history": "all training interactions"}
    return Profiled(
        profiles=write_parquet("profiles", table, inputs, facts),
        calls=write_parquet("profiles", LLM_CALLS.empty_table(), inputs, {"part": "calls"}),
        source="offline",
        llm_model=None,
        prompt_hash=prompt_hash(writer),
        provenance=provenance(table, subjects.seen),
        missing=0,
        answers_cached=0,
        answers_paid=0,
        cost_usd=0.0,
    )


def _write_asked(
    config: Profiles,
    template: Prompt,
    subjects: _Subjects,
    rendered: Iterable[tuple[str, Messages]],
    inputs: Mapping[str, Handle],
) -> Profiled:
    with answer_store(config.max_words) as store:
        keys = store.want(questions(config, rendered))
        interview = Interview(config, store, len(keys))
        with asking() if store.unanswered() or store.unexported() else nullcontext():
            outcome = interview.run()
            interview.require_enough(keys, outcome)
            result = _result(config, template, subjects, inputs, keys, store, outcome)
            store.mark_exported()
    show_bill(result)
    return result


def questions(config: Profiles, rendered: Iterable[tuple[str, Messages]]) -> Iterator[Question]:
    """One per subject, in sorted order; the key is all that decides the answer."""
    asked = {**config.llm.request_identity(), "base_url": endpoint(config.llm)}
    if shape := response_format(config.fields):
        asked["response_format"] = shape
    for _, messages in rendered:
        chat = messages.chat()
        yield Question(_sha256([config.provider, asked, chat]), chat)


def _result(
    config: Profiles,
    template: Prompt,
    subjects: _Subjects,
    inputs: Mapping[str, Handle],
    keys: list[str],
    store: AnswerStore,
    outcome: Outcome,
) -> Profiled:
    """Write the profiles and the bill."""
    answers = store.texts()
    texts = pa.array([answers.get(key) for key in keys], pa.string())
    reasons = [None if key in answers else outcome.missing.get(key, NOT_ASKED) for key in keys]
    table = _table(subjects, texts, pa.array(reasons, pa.string()), keys)
    calls = store.calls()
    paid = calls.filter(pc.invert(calls["cached"]))
    facts = {
        "prompt_hash": prompt_hash(template.text),
        "history": config.history.identity(),
        "llm": config.llm.request_identity(),
    }
    return Profiled(
        profiles=write_parquet("profiles", table, inputs, facts),
        calls=write_parquet("profiles", calls, inputs, {**facts, "part": "calls"}),
        source=config.provider,
        llm_model=config.llm.model,
        prompt_hash=facts["prompt_hash"],
        provenance=provenance(table, subjects.seen),
        missing=texts.null_count,
        unasked=reasons.count(NOT_ASKED),
        answers_cached=calls.num_rows - paid.num_rows,
        answers_paid=paid.num_rows,
        cost_usd=None if paid["cost_usd"].null_count else float(sum(paid["cost_usd"].to_pylist())),
    )


def _table(subjects: _Subjects, texts: pa.Array, reasons: pa.Array, keys: list[str]) -> pa.Table:
    """`profiles_schema`; texts, reasons and keys are in the order of the subjects."""
    seen, schema = subjects.seen, profiles_schema(subjects.key)
    columns = [seen[subjects.key], texts, reasons, seen[HISTORY_SHA256], seen[HISTORY_COUNT], keys]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def prompt_hash(text: str) -> str:
    """First 16 hex digits of a template's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
