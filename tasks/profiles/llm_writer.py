"""From questions to answers: who is asked, what it may cost, and whether enough came back."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from models.config import Profiles, Side
from models.errors import BadInput
from models.llm.pricing import Tariff
from models.llm.response_checks import response_format
from models.profiles import item_profiles
from models.profiles.prompt_templates import Messages, Prompt, render_all, render_items
from models.profiles.user_history import provenance
from tasks.config.price_table import price_table
from tasks.execution.progress import track
from tasks.llm.answer_store import Answer, AnswerStore, Question, answer_store, asking
from tasks.llm.api_key import api_key
from tasks.llm.batch_client import ask_in_batches
from tasks.llm.budget import Budget
from tasks.llm.chat_client import NOT_ASKED, Outcome, ask
from tasks.llm.endpoint import bound, endpoint, request_body, require_reachable
from tasks.profiles.history_batches import Histories
from tasks.profiles.outputs import Profiled
from tasks.profiles.subjects import Subjects, _subjects, prompt_hash, rows_of, sha256_of
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle, read_parquet, write_parquet


@dataclass
class Interview:
    """The questions of one run, put to the LLM that the configuration names.

    Raises:
        BadInput: when it is made, if there is something to ask and no key, no endpoint, or a
            budget though the price is not known.
    """

    config: Profiles
    store: AnswerStore
    subjects: int
    budget: Budget | None = field(init=False, default=None)
    _kept: int = field(init=False, default=0)
    _secret: str = field(init=False, default="", repr=False)

    def __post_init__(self) -> None:
        llm = self.config.llm
        if not self.store.unanswered():
            return
        if llm.budget_usd is not None:
            if self.tariff.price is None:
                raise BadInput(
                    f"profiles.llm.budget_usd is set, but the price of model {llm.model} is not "
                    f"known: add it to {llm.prices or 'a price table named in profiles.llm.prices'}"
                )
            self.budget = Budget(llm.budget_usd, self.tariff)
        self._secret = api_key(llm)
        require_reachable(llm)

    @cached_property
    def tariff(self) -> Tariff:
        """What answers cost."""
        llm = self.config.llm
        prices = price_table(Path(llm.prices) if llm.prices else None)
        return Tariff(prices.price_of(llm.model), batch=self.config.provider == "openai-batch")

    def run(self) -> Outcome:
        """Ask what the store does not know, if anything, and keep every answer as it arrives."""
        config, total = self.config, self.store.unanswered()
        if not total:
            return Outcome()
        logger().info("Asking %s for %d answers", config.llm.model, total)
        with track("profiles", total) as report:
            answers = count(1)

            def keep(key: str, answer: Answer) -> None:
                cost = self.tariff.cost(answer.prompt_tokens, answer.completion_tokens)
                self.store.put(key, config.provider, config.llm.model, answer, cost)
                self._kept = next(answers)
                report(self._kept)

            if config.provider == "openai-batch":
                return ask_in_batches(self.store, config, self._secret, keep, self.budget)
            tolerated = int(config.max_missing * self.subjects)
            questions = self.store.questions()
            outcome = ask(questions, config, self._secret, keep, tolerated, self.budget)
        if outcome.refused:
            raise BadInput(outcome.refused)
        return outcome

    def require_enough(self, keys: Sequence[str], outcome: Outcome) -> None:
        """Judge how many subjects are without a profile.

        Raises:
            BadInput: if more than `max_missing`.
        """
        texts = self.store.texts()
        missing = [outcome.missing.get(key, NOT_ASKED) for key in keys if key not in texts]
        if not missing:
            return
        causes = ", ".join(f"{n} {reason}" for reason, n in Counter(missing).most_common())
        summary = (
            f"{len(missing)} of {len(keys)} users ({len(missing) / len(keys):.1%}) "
            f"are without a profile: {causes}"
        )
        if self.budget and outcome.over_budget:
            summary += f". {self._left(self.budget, outcome)}"
        if len(missing) > self.config.max_missing * len(keys):
            stopped = ", for the asking stopped where nothing succeeded" if outcome.gave_up else ""
            raise BadInput(
                f"profiles: {summary}{stopped}; profiles.max_missing allows "
                f"{self.config.max_missing:.1%}. The answers received are kept, so a rerun asks "
                "only for the others"
            )
        logger().warning("%s", summary)

    def _left(self, budget: Budget, outcome: Outcome) -> str:
        """What a budget went on, and what is left to ask."""
        self.store.unanswered()
        left = [of for of in self.store.questions() if of.key not in outcome.missing]
        bounds = (bound(budget.tariff, request_body(self.config, of.messages, 0)) for of in left)
        most = sum(bounds)
        usual = f", about {budget.spent / self._kept * len(left):.2g}" if self._kept else ""
        return (
            f"Of profiles.llm.budget_usd, {budget.limit:.6g} USD, {budget.spent:.6g} are spent on "
            f"{self._kept} answers; {len(left)} questions are left{usual}, at most {most:.2g} USD"
        )


def show_bill(profiled: Profiled) -> None:
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


def logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The run's logger, or outside a run one that needs no Prefect."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


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
