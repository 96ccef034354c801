"""Stage *profiles*: one text per user or item, from statistics or an LLM, and what it cost."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from models import item_profiles
from models.answers import response_format
from models.config import Profiles, Side
from models.front_matter import Template
from models.profiles import provenance, record
from models.prompts import Messages, Prompt, render_all, render_items
from models.schemas import ITEM, TEXT, USER
from tasks.answers import AnswerStore, Question, answer_store, asking
from tasks.caching import stage
from tasks.chat import NOT_ASKED, Outcome
from tasks.crew import require_workers
from tasks.endpoint import endpoint
from tasks.handoffs import Previous, Profiled
from tasks.histories import Histories
from tasks.imports import import_profiles
from tasks.interview import Interview, show_bill
from tasks.kept_profiles import Earlier, settings_of
from tasks.offline_profiles import (
    Subjects,
    prompt_hash,
    rows_of,
    sha256_of,
    texts_in_memory,
    write_in_memory,
    write_of_users,
)
from tasks.storage import Handle, read_parquet, write_parquet
from tasks.streaming import Stream


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
    if config.provider == "offline" and side == "users" and previous is None:
        written = write_of_users(config, train, items)
        settings = settings_of(config, [prompt, demographics])
        return _marked(config, written.model_copy(update={"seen": train, "settings": settings}))
    inputs = {"train": train, "items": items}
    if imported is not None:
        return import_profiles(config, imported, read_parquet(train), inputs, side)
    subjects = _subjects(config, train, side)
    known = previous if side == "users" else None
    earlier = Earlier.of(config, [prompt, demographics], train, known)
    others = Subjects(subjects.key, earlier.kept.others(subjects.seen))
    if config.provider == "offline":
        texts, writer = texts_in_memory(config, read_parquet(train), read_parquet(items), side)
        of_others = earlier.kept.others(subjects.seen.append_column(TEXT, pa.array(texts)))
        written = write_in_memory(others, of_others[TEXT].to_pylist(), writer, inputs)
    else:
        template = Prompt(prompt, config.prompt, side)
        if demographics is not None:
            inputs["demographics"] = demographics
        rendered = render(config, template, train, items, side, demographics)
        asked = earlier.asking(config, subjects.seen.num_rows)
        written = _write_asked(asked, template, others, earlier.others(rendered), inputs)
    if side == "users":
        written = earlier.join(written, subjects.seen, train, inputs)
    return _marked(config, written)


def _marked(config: Profiles, written: Profiled) -> Profiled:
    """Profiles that were written from held-out interactions, too, prove nothing."""
    leaky = config.interactions == "all"
    return written.model_copy(update={"provenance": "leaky"}) if leaky else written


def _subjects(config: Profiles, train: Handle, side: Side) -> Subjects:
    if side == "items":
        return Subjects(ITEM, item_profiles.record(read_parquet(train)))
    # Statistics cost nothing, so they are taken of the whole history, not of a prompt's share.
    if not config.asks:
        return Subjects(USER, record(read_parquet(train)))
    return Subjects(USER, Histories(Stream.of(train), config.history).records())


def render(
    config: Profiles,
    template: Prompt,
    train: Handle,
    items: Handle,
    side: Side,
    demographics: Handle | None = None,
) -> Iterator[tuple[str, Messages]]:
    """Every subject's id and prompt, in sorted order, as the stage asks them.

    Args:
        config: the history policy.
        template: the prompt template.
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
        side: users, of whom one batch is in memory at a time, or items.
        demographics: what `history.demographics` names, if anything.

    Raises:
        BadInput: for a template that cannot be filled, or does not use what was asked for.
    """
    history, catalogue = config.history, read_parquet(items)
    if side == "items":
        known = item_profiles.subjects(read_parquet(train), catalogue, history.limit)
        return render_items(template, known, history)
    template.require_demographics(history.demographics)
    people = None if demographics is None else read_parquet(demographics)
    whole = Histories(Stream.of(train), history)
    return chain.from_iterable(
        render_all(template, selected, catalogue, history, people, whole.mean_rating)
        for selected in whole.selected()
    )


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
    rendered = render(config, template, train, items, side, demographics)
    keys = store.want(questions(config, rendered))
    texts = pa.array(map(store.texts().get, keys), pa.string())
    nothing = pa.nulls(len(keys), pa.string())
    return rows_of(_subjects(config, train, side), texts, nothing, keys)


def _write_asked(
    config: Profiles,
    template: Prompt,
    subjects: Subjects,
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
        yield Question(sha256_of([config.provider, asked, chat]), chat)


def _result(
    config: Profiles,
    template: Prompt,
    subjects: Subjects,
    inputs: Mapping[str, Handle],
    keys: list[str],
    store: AnswerStore,
    outcome: Outcome,
) -> Profiled:
    """Write the profiles and the bill."""
    answers = store.texts()
    texts = pa.array([answers.get(key) for key in keys], pa.string())
    reasons = [None if key in answers else outcome.missing.get(key, NOT_ASKED) for key in keys]
    table = rows_of(subjects, texts, pa.array(reasons, pa.string()), keys)
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
