"""The providers `openai` and `openai-batch`: profiles that an LLM writes from a prompt."""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from models.errors import BadInput
from models.llm.pricing import Tariff
from models.llm.response_checks import response_format
from models.profiles import item_profiles
from models.profiles.prompt_templates import Messages, Prompt, render_all, render_items
from models.profiles.provenance import record_of_items
from models.schemas import KEYS
from tasks.config.price_table import price_table
from tasks.execution.cache_key import content
from tasks.execution.progress import track
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
            refuses, a budget though the price is not known, and too many subjects without an
            answer; the answers received are kept.
    """
    with answer_store(request.config.max_words) as store:
        keys = store.want(question for _, question in questions(request))
        config, subjects = request.config, len(keys) + len(request.kept)
        tariff = Tariff(price_table(config.llm.prices).price_of(config.llm.model), config.batched)
        run = AnswerRun(config, store, subjects, tariff)
        with answer_lock() if store.unanswered() or store.unexported() else nullcontext():
            _ask(run)
            if warning := run.require_enough(keys):
                _logger().warning("%s", warning)
            profiled = _profiled(request, keys, run)
            store.mark_exported()
    _show_bill(profiled)
    return profiled


def answered(request: Request, store: AnswerStore) -> pa.Table:
    """Return `profiles_schema` with the answers of a store; nothing is asked or paid."""
    keys = store.want(question for _, question in questions(request))
    return _rows(request, keys, store, pa.nulls(len(keys), pa.string()))


def questions(request: Request) -> Iterator[tuple[str, Question]]:
    """Yield every subject's id and question, in sorted order; equal keys give equal answers."""
    config = request.config
    identity = {**config.llm.request_identity(), "base_url": endpoint(config.llm)}
    if shape := response_format(config.fields):
        identity["response_format"] = shape
    for subject, messages in _prompts(request):
        if subject not in request.kept:
            chat = messages.chat()
            yield subject, Question(sha256_of([config.provider, identity, chat]), chat)


def _prompts(request: Request) -> Iterator[tuple[str, Messages]]:
    """Render every subject's prompt; of users, one batch is in memory at a time."""
    history, items = request.config.history, read_parquet(request.items)
    prompt = Prompt(request.prompt, request.config.prompt, request.side)
    if request.side == "items":
        train = read_parquet(request.train)
        return render_items(prompt, item_profiles.subjects(train, items, history.limit), history)
    prompt.require_demographics(history.demographics)
    people = None if request.demographics is None else read_parquet(request.demographics)
    mean = mean_rating(selected(request.train, history))
    return chain.from_iterable(
        render_all(prompt, table, items, history, people, mean)
        for table in selected(request.train, history)
    )


def _ask(run: AnswerRun) -> None:
    """Ask what the store does not know, if anything; every answer is kept as it arrives."""
    config, total = run.config, run.store.unanswered()
    if not total:
        return
    if config.llm.budget_usd is not None:
        if run.tariff.price is None:
            raise BadInput(
                f"profiles.llm.budget_usd is set, but the price of model {config.llm.model} is not "
                "known. Add it to "
                f"{config.llm.prices or 'a price table named in profiles.llm.prices'}"
            )
        run.budget = Budget(config.llm.budget_usd, run.tariff)
    run.key = api_key(config.llm)
    require_reachable(config.llm)
    _logger().info("Asking %s for %d answers", config.llm.model, total)
    with track("profiles", total) as run.report:
        _CLIENTS[config.provider](run)


def _profiled(request: Request, keys: list[str], run: AnswerRun) -> Profiled:
    config, texts = request.config, run.store.texts()
    reasons = [None if key in texts else run.reason(key) for key in keys]
    table = _rows(request, keys, run.store, pa.array(reasons, pa.string()))
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
        missing=len(keys) - reasons.count(None),
        unasked=reasons.count(NOT_ASKED),
        answers_cached=calls.num_rows - paid.num_rows,
        answers_paid=paid.num_rows,
        cost_usd=None if paid["cost_usd"].null_count else float(sum(paid["cost_usd"].to_pylist())),
    )


def _rows(request: Request, keys: list[str], store: AnswerStore, reasons: pa.Array) -> pa.Table:
    if request.side == "items":
        seen = record_of_items(read_parquet(request.train), request.config.sees_nothing)
    else:
        seen = records(request.train, request.config.history)
    kept = pa.array(request.kept, pa.string())
    seen = seen.filter(pc.invert(pc.is_in(seen[KEYS[request.side]], kept)))
    texts = pa.array(map(store.texts().get, keys), pa.string())
    return profile_rows(request.side, seen, texts, reasons, keys)


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


def _logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return the run's logger, or outside a run one that needs no Prefect."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)
