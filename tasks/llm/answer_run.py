"""One run's requests to an LLM: what is asked, what may be spent, and which answers are missing."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from models.config import Profiles
from models.errors import BadInput
from models.llm.failures import Failure
from models.llm.pricing import Tariff
from tasks.llm.answer_store import Answer, AnswerStore, Question
from tasks.llm.budget import Budget
from tasks.llm.endpoint import explain, request_body

ATTEMPTS = 3
"""How often a prompt is asked while the answers are unusable."""

NOT_ASKED = "not asked"
"""Why an answer is missing where the run stopped before its question."""

_ADVICE = dict.fromkeys(
    ("truncated at max_tokens", "reasoning without an answer"),
    "Raise profiles.llm.max_tokens, where reasoning counts, too. ",
)
_HOPELESS = 3
_ALIKE = 3
"""So many prompts refused in the same words, and none answered: it is not the prompts."""


@dataclass
class AnswerRun:
    """The questions of a store that have no answer yet, and how the run has gone so far.

    Attributes:
        subjects: users (items) that the run needs profiles of.
        key: the endpoint's API key.
        report: called with the number of answers so far.
        budget: what may be spent; None means any amount.
        missing: why an answer is missing, by its question's key.
        settled: keys that are not asked again in this run.
        too_long: keys of prompts that the model's context has no room for.
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
    settled: set[str] = field(default_factory=set)
    too_long: set[str] = field(default_factory=set)
    refused: str | None = None
    gave_up: bool = False
    answers: int = 0
    _failures_in_a_row: int = 0
    _has_usable: bool = False
    _refusals: Counter[str] = field(default_factory=Counter)

    def questions(self) -> Iterator[Question]:
        """Yield the questions that are still to be asked."""
        return (q for q in self.store.questions() if q.key not in self.settled)

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

    def note(self, key: str, problem: Failure | None, final: bool = True) -> None:
        """Note how a question went, None if well, and stop where no other would go better.

        A question with a problem that is `final` is not asked again.
        """
        if problem is None:
            self.missing.pop(key, None)
            self._failures_in_a_row, self._has_usable = 0, True
        elif problem.reason != NOT_ASKED:
            self.missing[key] = problem.reason
            self.settled |= {key} if final else set()
            self.too_long |= {key} if problem.scope == "length" else set()
            self._failures_in_a_row += problem.scope != "length"
            hopeless = self._failures_in_a_row >= _HOPELESS * self.config.llm.concurrency
            self.gave_up |= hopeless and len(self.missing) > self._tolerated
            if problem.scope == "run" or self._is_of_the_run(problem):
                self.refused = explain(problem, self.config.llm)

    @property
    def _tolerated(self) -> int:
        return int(self.config.max_missing * self.subjects)

    def _is_of_the_run(self, problem: Failure) -> bool:
        """True if prompt after prompt is refused in the same words, and none was answered."""
        if problem.scope != "unclear" or self._has_usable:
            return False
        self._refusals[problem.reason] += 1
        return self._refusals[problem.reason] >= max(_ALIKE, self.config.llm.concurrency)

    def reason(self, key: str) -> str:
        """Return why a question has no answer."""
        return self.missing.get(key, NOT_ASKED)

    def require_enough(self, keys: list[str]) -> str | None:
        """A warning of subjects (questions' keys) without profile; BadInput above the limit."""
        texts = self.store.texts()
        missing = [self.reason(key) for key in keys if key not in texts]
        if not missing:
            return None
        kinds = Counter(reason.partition(": ")[0] for reason in missing).most_common()
        causes = ", ".join(f"{n} {kind}" for kind, n in kinds)
        summary = (
            f"{len(missing)} of {self.subjects} profiles "
            f"({len(missing) / self.subjects:.1%}) are missing: {causes}"
        )
        if said := Counter(filter(None, (reason.partition(": ")[2] for reason in missing))):
            summary += f' (the endpoint said "{said.most_common(1)[0][0]}")'
        if self.budget and self.over_budget:
            summary += f". {self._left(self.budget)}"
        if len(missing) > self.config.max_missing * self.subjects:
            stopped = ", and the run stopped because nothing succeeded" if self.gave_up else ""
            advice = _ADVICE.get(kinds[0][0], "")
            raise BadInput(
                f"profiles: {summary}{stopped}; profiles.max_missing allows "
                f"{self.config.max_missing:.1%}. {advice}Run again: the answers received are kept, "
                "so only the others are asked for"
            )
        return summary

    def _left(self, budget: Budget) -> str:
        """Say what a budget was spent on, and what is left to ask."""
        self.store.unanswered()
        left = [q for q in self.questions() if q.key not in self.missing]
        most = sum(budget.highest_cost(request_body(self.config, q.messages, 0)) for q in left)
        usual = f", about {budget.spent / self.answers * len(left):.2g}" if self.answers else ""
        return (
            f"Of profiles.llm.budget_usd, {budget.limit:.6g} USD, {budget.spent:.6g} are spent on "
            f"{self.answers} answers; {len(left)} questions are left{usual}, at most {most:.2g} USD"
        )
