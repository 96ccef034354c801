"""The providers `openai` and `openai-batch`: profiles that an LLM writes from a prompt."""

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import BadInput
from models.llm.pricing import Tariff
from models.llm.response_checks import response_format
from models.profiles import item_profiles
from models.profiles.prompt_templates import Messages, Prompt, render_all, render_items
from models.profiles.provenance import record_of_items
from models.schemas import KEYS, USER
from tasks.config.price_table import price_table
from tasks.execution.cache_key import content
from tasks.execution.progress import run_logger, track
from tasks.llm.answer_run import NOT_ASKED, AnswerRun
from tasks.llm.answer_store import AnswerStore, Question, answer_lock, answer_store
from tasks.llm.batch_client import ask_in_batches
from tasks.llm.budget import Budget
from tasks.llm.chat_client import ask
from tasks.llm.endpoint import api_key, endpoint, require_reachable
from tasks.profiles.history_batches import mean_rating, records, selected
from tasks.profiles.outputs import Profiled
from tasks.profiles.request import Basis, Request, profile_rows, prompt_hash, sha256_of
from tasks.storage.artifacts import read_parquet, write_parquet

_CLIENTS = {"openai": ask, "openai-batch": ask_in_batches}


def basis(request: Request) -> Basis:
    """A prompt shows a share of the history, and demographics where it asks for them."""
    return Basis(request.config.history, content([request.prompt, request.demographics]))


def write(request: Request) -> Profiled:
    """Ask for the answers that the store lacks, and write the profiles and the bill.

    Raises:
        BadInput: for a faulty template, a missing key, an endpoint that cannot be reached or
            refuses, a budget that cannot be kept to, and too many subjects without an answer; the
            answers received are kept.
    """
    with _modules_set_aside(), answer_store(request.config.max_words) as store:
        asked = _Asked(request, store)
        config, subjects = request.config, len(asked.keys) + len(request.kept)
        tariff = Tariff(price_table(config.llm.prices).price_of(config.llm.model), config.batched)
        run = AnswerRun(config, store, subjects, tariff)
        with answer_lock() if store.unanswered() or store.unexported() else nullcontext():
            _ask(run)
            while asked.shorten(run.too_long):
                _ask(run)
            warnings = [run.require_enough(list(asked.keys.values())), asked.warning()]
            profiled = _profiled(asked, run, tuple(filter(None, warnings)))
            store.mark_exported()
    for warning in profiled.warnings:
        run_logger().warning("%s", warning)
    _show_bill(profiled)
    return profiled


@contextmanager
def _modules_set_aside() -> Iterator[None]:
    """Keep what is in memory by now out of garbage collections, which took 0.1 s each for it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def answered(request: Request, store: AnswerStore) -> pa.Table:
    """Return `profiles_schema` with the answers of a store; nothing is asked or paid."""
    asked = _Asked(request, store)
    while texts := store.texts():
        # What a run has shortened is found in the same way.
        if not asked.shorten({key for key in asked.keys.values() if key not in texts}):
            break
    return asked.rows(pa.nulls(len(asked.keys), pa.string()))


def questions(
    request: Request, limit: int | None = None, subjects: Collection[str] | None = None
) -> Iterator[tuple[str, Question]]:
    """Yield every subject's id and question, in sorted order; equal keys give equal answers.

    With `subjects`, of these alone; `limit` replaces the history's, for prompts that are too long.
    """
    config = request.config
    identity = {**config.llm.request_identity(), "base_url": endpoint(config.llm)}
    if shape := response_format(config.fields):
        identity["response_format"] = shape
    for subject, messages in _prompts(request, limit, subjects):
        if subject not in request.kept and (subjects is None or subject in subjects):
            chat = messages.chat()
            yield subject, Question(sha256_of([config.provider, identity, chat]), chat)


def _prompts(
    request: Request, limit: int | None, subjects: Collection[str] | None
) -> Iterator[tuple[str, Messages]]:
    """Render every subject's prompt; of users, one batch is in memory at a time."""
    history, items = request.config.history, read_parquet(request.items)
    policy = history if limit is None else history.model_copy(update={"limit": limit})
    prompt = Prompt(request.prompt, request.config.prompt, request.side)
    if request.side == "items":
        train = read_parquet(request.train)
        counted = policy.feedback == "counts"
        known = item_profiles.subjects(train, items, policy.limit, counted)
        return render_items(prompt, known, policy)
    prompt.require_demographics(history.demographics)
    people = None if request.demographics is None else read_parquet(request.demographics)
    mean = mean_rating(selected(request.train, history))
    return chain.from_iterable(
        render_all(prompt, table, items, policy, people, mean)
        for table in selected(request.train, policy, subjects)
    )


class _Asked:
    """Every subject's question, shortened where its prompt was too long for the model.

    Attributes:
        keys: of the questions, by subject.
        limits: the history limit of each shortened subject.
    """

    def __init__(self, request: Request, store: AnswerStore) -> None:
        self.request, self._store = request, store
        self.keys: dict[str, str] = {}
        self.limits: dict[str, int] = {}
        self._limit = request.config.history.limit
        self._want(None, None)

    def _want(self, limit: int | None, subjects: Collection[str] | None) -> None:
        def noted() -> Iterator[Question]:
            for subject, question in questions(self.request, limit, subjects):
                self.keys[subject] = question.key
                yield question

        self._store.want(noted())

    def shorten(self, too_long: Collection[str]) -> bool:
        """Halve the history of subjects whose question is among these keys.

        Returns False if there are none, or nothing is left to leave out.
        """
        subjects = {subject for subject, key in self.keys.items() if key in too_long}
        shortest = 0 if self.request.side == "items" else 1
        if (
            not subjects
            or self.request.config.history.too_long != "shorten"
            or self._limit == shortest
        ):
            return False
        self._limit //= 2
        self.limits |= dict.fromkeys(subjects, self._limit)
        self._want(self._limit, subjects)
        return True

    def warning(self) -> str | None:
        """Say how many profiles a shorter history is behind."""
        texts = self._store.texts()
        limits = [limit for subject, limit in self.limits.items() if self.keys[subject] in texts]
        if not limits:
            return None
        return (
            f"{len(limits)} of {len(self.keys)} profiles are written from fewer interactions (at "
            f"most {min(limits)}, not {self.request.config.history.limit}), because their prompts "
            "were longer than the model's context"
        )

    def rows(self, reasons: pa.Array) -> pa.Table:
        """Return `profiles_schema`: every subject's text, or the reason why there is none."""
        request = self.request
        if request.side == "items":
            alone = pa.array(self.keys, pa.string()) if request.config.sees_nothing else None
            seen = record_of_items(read_parquet(request.train), alone)
        else:
            seen = self._records()
        kept = pa.array(request.kept, pa.string())
        seen = seen.filter(pc.invert(pc.is_in(seen[KEYS[request.side]], kept)))
        texts = pa.array(map(self._store.texts().get, self.keys.values()), pa.string())
        return profile_rows(request.side, seen, texts, reasons, self.keys.values())

    def _records(self) -> pa.Table:
        """What each user's prompt shows, shortened or not."""
        train, history = self.request.train, self.request.config.history
        seen = records(train, history)
        for limit in set(self.limits.values()):
            users = [user for user, own in self.limits.items() if own == limit]
            shorter = records(train, history.model_copy(update={"limit": limit}), users)
            others = seen.filter(pc.invert(pc.is_in(seen[USER], pa.array(users))))
            seen = pa.concat_tables([others, shorter])
        return seen.sort_by(USER).combine_chunks()


def _ask(run: AnswerRun) -> None:
    """Ask what the store does not know, if anything; every answer is kept as it arrives."""
    config, total = run.config, run.store.unanswered() - len(run.settled)
    if not total or run.stopped:
        return
    if config.llm.budget_usd is not None and run.budget is None:
        if config.llm.max_tokens is None:
            raise BadInput(
                "profiles.llm.budget_usd is set, but max_tokens is null, so that an answer may "
                "cost any amount. Set profiles.llm.max_tokens"
            )
        if run.tariff.price is None:
            raise BadInput(
                f"profiles.llm.budget_usd is set, but the price of model {config.llm.model} is not "
                "known. Add it to "
                f"{config.llm.prices or 'a price table named in profiles.llm.prices'}"
            )
        run.budget = Budget(config.llm.budget_usd, run.tariff, config.llm.max_tokens)
    run.key = api_key(config.llm)
    require_reachable(config.llm)
    run_logger().info("Asking %s for %d answers", config.llm.model, total)
    with track("profiles", total) as run.report:
        _CLIENTS[config.provider](run)


def _profiled(asked: _Asked, run: AnswerRun, warnings: tuple[str, ...]) -> Profiled:
    request, keys, texts = asked.request, list(asked.keys.values()), run.store.texts()
    config = request.config
    reasons = [None if key in texts else run.reason(key) for key in keys]
    table = asked.rows(pa.array(reasons, pa.string()))
    calls = run.store.calls()
    paid = calls.filter(pc.invert(calls["cached"]))
    facts = {
        "prompt_hash": prompt_hash(request.prompt.content),
        "history": config.history.identity(),
        "llm": config.llm.request_identity(),
    }
    return Profiled(
        profiles=write_parquet("profiles", table, request.inputs, facts),
        calls=write_parquet("profiles", calls, request.inputs, {**facts, "part": "calls"}),
        source=config.provider,
        llm_model=config.llm.model,
        prompt_hash=facts["prompt_hash"],
        provenance=config.provenance,
        warnings=warnings,
        missing=len(keys) - reasons.count(None),
        unasked=reasons.count(NOT_ASKED),
        answers_cached=calls.num_rows - paid.num_rows,
        answers_paid=paid.num_rows,
        cost_usd=None if paid["cost_usd"].null_count else float(sum(paid["cost_usd"].to_pylist())),
    )


def _show_bill(profiled: Profiled) -> None:
    """Leave what the answers cost with the Prefect run, if this is one."""
    from prefect.artifacts import create_table_artifact
    from prefect.context import TaskRunContext

    if TaskRunContext.get() is None:
        return
    cost = profiled.cost_usd
    row = {
        "provider": profiled.source,
        "model": profiled.llm_model,
        "answers paid for": profiled.answers_paid,
        "from the cache": profiled.answers_cached,
        "without a profile": profiled.missing,
        "cost in USD": "not known" if cost is None else f"{cost:.4f}",
    }
    create_table_artifact(table=[row], key="llm-cost", description="What the profiles cost.")
