"""From questions to answers: who is asked, what it may cost, and whether enough came back."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from models.config import Profiles
from models.errors import BadInput
from models.prices import Tariff
from tasks.answers import Answer, AnswerStore
from tasks.batch import ask_in_batches
from tasks.budget import Budget
from tasks.chat import NOT_ASKED, Outcome, ask
from tasks.configuration import api_key, price_table
from tasks.endpoint import bound, request_body, require_reachable
from tasks.handoffs import Profiled
from tasks.progress import track


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
