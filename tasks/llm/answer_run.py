"""One run's requests to an LLM: what is asked, what may be spent, and which answers are missing."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from models.config import Profiles
from models.errors import BadInput
from models.llm.pricing import Tariff
from tasks.llm.answer_store import Answer, AnswerStore
from tasks.llm.budget import Budget
from tasks.llm.endpoint import request_body

ATTEMPTS = 3
"""How often a prompt is asked while the answers are unusable."""

NOT_ASKED = "not asked"
"""Why an answer is missing where the run stopped before its question."""

_HOPELESS = 3


@dataclass
class AnswerRun:
    """The questions of a store that have no answer yet, and how the run has gone so far.

    Attributes:
        subjects: users (items) that the run needs profiles of.
        key: the endpoint's API key.
        report: called with the number of answers so far.
        budget: what may be spent; None means any amount.
        missing: why an answer is missing, by its question's key.
        refused: why the endpoint refuses every request, if it does.
        gave_up: whether the run stopped because nothing succeeded.
        answers: how many arrived, usable or not.
    """

    config: Profiles
    store: AnswerStore
    subjects: int
    tariff: Tariff
    key: str = field(default="", repr=False)
    report: Callable[[int], None] = lambda _: None
    budget: Budget | None = None
    missing: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    gave_up: bool = False
    answers: int = 0
    _failures_in_a_row: int = 0

    @property
    def stopped(self) -> bool:
        """True if no further question is to be asked."""
        return self.gave_up or self.over_budget or self.refused is not None

    @property
    def over_budget(self) -> bool:
        """True if the next question does not fit the budget."""
        return self.budget is not None and self.budget.exhausted

    def keep(self, key: str, answer: Answer) -> None:
        """Commit an answer, usable or not."""
        cost = self.tariff.cost(answer.prompt_tokens, answer.completion_tokens)
        self.store.put(key, self.config.provider, self.config.llm.model, answer, cost)
        self.answers += 1
        self.report(self.answers)

    def note(self, key: str, problem: str | None) -> None:
        """Note how a question went, and give up after many failures one after the other."""
        if problem is None:
            self._failures_in_a_row = 0
        elif problem != NOT_ASKED:
            self.missing[key] = problem
            self._failures_in_a_row += 1
            hopeless = self._failures_in_a_row >= _HOPELESS * self.config.llm.concurrency
            tolerated = int(self.config.max_missing * self.subjects)
            self.gave_up |= hopeless and len(self.missing) > tolerated

    def reason(self, key: str) -> str:
        """Return why a question has no answer."""
        return self.missing.get(key, NOT_ASKED)

    def require_enough(self, keys: list[str]) -> str | None:
        """Judge how many subjects, by their questions' keys, have no profile; returns a warning.

        Raises:
            BadInput: if more than `max_missing`.
        """
        texts = self.store.texts()
        missing = [self.reason(key) for key in keys if key not in texts]
        if not missing:
            return None
        causes = ", ".join(f"{n} {reason}" for reason, n in Counter(missing).most_common())
        summary = (
            f"{len(missing)} of {self.subjects} profiles "
            f"({len(missing) / self.subjects:.1%}) are missing: {causes}"
        )
        if self.budget and self.over_budget:
            summary += f". {self._left(self.budget)}"
        if len(missing) > self.config.max_missing * self.subjects:
            stopped = ", and the run stopped because nothing succeeded" if self.gave_up else ""
            raise BadInput(
                f"profiles: {summary}{stopped}; profiles.max_missing allows "
                f"{self.config.max_missing:.1%}. Run again: the answers received are kept, so only "
                "the others are asked for"
            )
        return summary

    def _left(self, budget: Budget) -> str:
        """Say what a budget was spent on, and what is left to ask."""
        self.store.unanswered()
        left = [q for q in self.store.questions() if q.key not in self.missing]
        most = sum(budget.highest_cost(request_body(self.config, q.messages, 0)) for q in left)
        usual = f", about {budget.spent / self.answers * len(left):.2g}" if self.answers else ""
        return (
            f"Of profiles.llm.budget_usd, {budget.limit:.6g} USD, {budget.spent:.6g} are spent on "
            f"{self.answers} answers; {len(left)} questions are left{usual}, at most {most:.2g} USD"
        )
