"""What asking an LLM for profiles would take: prompts, tokens and money. Nothing is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path

import pyarrow.compute as pc
from pydantic import BaseModel

from models.config import Profiles, Side
from models.llm.pricing import PriceTable, Tariff
from tasks.config.pipeline_file import load
from tasks.config.price_table import price_table
from tasks.config.prompt_file import SECTIONS
from tasks.inspection.current_profiles import request_of
from tasks.inspection.token_counter import TokenCounter
from tasks.llm.answer_store import AnswerStore, answer_store
from tasks.profiles.llm_writer import questions
from tasks.profiles.request import Request

_AT_ONCE = 256
_ASSUMED = 400


class Sample(BaseModel):
    """One rendered prompt."""

    id: str
    system: str | None
    user: str
    prompt_tokens: int
    answered: bool


class Cost(BaseModel):
    """What the whole run costs with one model, nothing answered yet, in US dollars."""

    model: str
    standard_usd: float
    batch_usd: float
    configured: bool


class Preview(BaseModel):
    """What asking for all profiles would take.

    Attributes:
        configured_provider: as configured; offline and import ask nothing, so that the preview is
            of `provider`.
        subjects: users (items) of the training part.
        prompts: different prompts; equal ones are asked once.
        answered: those whose answer is kept from before: nothing to pay.
        prompt_tokens: of all different prompts.
        tokens: how they were counted: `exact, ENCODING` or `estimated`.
        completion_tokens: of all answers: as long as those that are there are on average, else
            `max_tokens` each.
        completions: which of the two, in words.
        to_pay_usd: what is left to pay with the configured model and provider; None where its
            price is not known.
        prices_date: of the price table.
    """

    side: Side
    configured_provider: str
    provider: str
    model: str
    prompt: str
    subjects: int
    prompts: int
    answered: int
    prompt_tokens: int
    tokens: str
    completion_tokens: int
    completions: str
    to_pay_usd: float | None
    costs: list[Cost]
    prices_date: date
    samples: list[Sample]


def preview(path: Path, overrides: Sequence[str] = (), n: int = 1, side: Side = "users") -> Preview:
    """Render and count a configuration's prompts; hand back `n`; BadInput for a faulty one."""
    pipeline = load(path, overrides)
    given = pipeline.profiles_of(side)
    if not given.asks:
        section = SECTIONS[side]
        asks = (f"{section}.provider=openai", f"{section}.path=null")
        pipeline = load(path, [*overrides, *asks])
    config = pipeline.profiles_of(side)
    prices = price_table(config.llm.prices)
    with answer_store(config.max_words) as store:
        bill = bill_of(request_of(pipeline, side), store, n)
    return Preview(
        side=side,
        configured_provider=given.provider,
        provider=config.provider,
        model=config.llm.model,
        prompt=config.prompt,
        subjects=bill.subjects,
        prompts=len(bill.tokens),
        answered=len(bill.tokens) - len(bill.unanswered),
        prompt_tokens=sum(bill.tokens.values()),
        tokens=bill.how,
        completion_tokens=bill.per_answer * len(bill.tokens),
        completions=bill.completions,
        to_pay_usd=to_pay(config, bill),
        costs=_costs(config.llm.model, prices, bill),
        prices_date=prices.date,
        samples=bill.samples,
    )


@dataclass
class Bill:
    """Tokens of each different prompt, by key, and what is known of the answers."""

    how: str
    per_answer: int
    completions: str
    subjects: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    samples: list[Sample] = field(default_factory=list)


def bill_of(request: Request, store: AnswerStore, n: int) -> Bill:
    """Count every different prompt, and those without an answer; keep `n` rendered ones."""
    counter = TokenCounter(request.config.llm.model)
    most = request.config.llm.max_tokens
    how = "at most, by max_tokens" if most else "assumed, as max_tokens is not set"
    bill = Bill(counter.how, most or _ASSUMED, how)
    asked = questions(request)
    while batch := list(islice(asked, _AT_ONCE)):
        store.want(question for _, question in batch)
        counts = counter.count([question.messages for _, question in batch])
        bill.subjects += len(batch)
        for (subject, question), count in zip(batch, counts, strict=True):
            bill.tokens[question.key] = count
            if len(bill.samples) < n:
                said = {message["role"]: message["content"] for message in question.messages}
                sample = Sample(
                    id=subject,
                    system=said.get("system"),
                    user=said["user"],
                    prompt_tokens=count,
                    answered=store.knows([question.key]),
                )
                bill.samples.append(sample)
    if store.unanswered():
        bill.unanswered = {question.key for question in store.questions()}
    lengths = store.calls()["completion_tokens"].drop_null()
    if len(lengths):
        bill.per_answer = math.ceil(pc.mean(lengths).as_py())
        bill.completions = f"as long as the {len(lengths)} answers that are there, on average"
    return bill


def to_pay(config: Profiles, bill: Bill) -> float | None:
    """Return US dollars for the answers that are not there; None where the price is not known."""
    if not bill.unanswered:
        return 0.0
    tariff = Tariff(price_table(config.llm.prices).price_of(config.llm.model), config.batched)
    prompts = sum(bill.tokens[key] for key in bill.unanswered)
    return tariff.cost(prompts, bill.per_answer * len(bill.unanswered))


def _costs(model: str, prices: PriceTable, bill: Bill) -> list[Cost]:
    """List the configured model, then the table's, without text models, which answer nothing."""
    listed = {name: price for name, price in prices.prices.items() if price.output_per_million}
    own = prices.price_of(model)
    candidates = ({model: own} if own else {}) | listed
    answers = bill.per_answer * len(bill.tokens)
    prompts = sum(bill.tokens.values())
    return [
        Cost(
            model=name,
            standard_usd=price.cost(prompts, answers),
            batch_usd=price.cost(prompts, answers, batch=True),
            configured=name == model,
        )
        for name, price in candidates.items()
    ]
