"""Time and cost of the work ahead, from past trainings and from questions not yet answered."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import duckdb
from pydantic import BaseModel

from models.config import Job, Pipeline, Side
from models.errors import BadInput
from models.recommenders.registry import judged
from tasks.inspection.current_profiles import request_of
from tasks.inspection.prompt_cost import bill_of, to_pay
from tasks.llm.answer_store import answer_store
from tasks.results.database import has_database
from tasks.results.queries import reading
from tasks.storage.sql_scripts import script

_SECONDS_PER_EPOCH = {
    "iALS": 0.15,
    "Blend": 0.3,
    "BPR": 0.2,
    "MultiVAE": 0.3,
    "LightGCN": 1.2,
    "SimpleX": 1.2,
    "NeuMF": 1.5,
}
"""Of one core of a shared server, validation included, ml-100k."""
_OTHERS = 2.0
_COMPUTED = 2.0
"""Seconds of a model that is computed, such as EASE."""
_MEASURED_ON = 70_000
"""Training interactions."""


class Duration(BaseModel):
    """Seconds of trainings, one after the other.

    `guessed` says how many of the trainings no past run is like.
    """

    seconds: float
    trainings: int
    guessed: int


class Money(BaseModel):
    """What is left to ask, and to pay in US dollars; None where a price is not known."""

    questions: int
    usd: float | None


class _Past(NamedTuple):
    dataset: str
    model: str
    epochs: int
    seconds: float
    seconds_per_epoch: float


def duration(jobs: Sequence[tuple[str, Job]], interactions: int | None) -> Duration:
    """Estimate how long trainings take, by past ones of the same model and data set.

    Those of the same budget count first, then the time per epoch of others, then rough figures
    for as many training interactions.
    """
    past = _past()
    seconds, guessed = 0.0, 0
    for dataset, job in jobs:
        alike = [row for row in past if (row.dataset, row.model) == (dataset, job.model)]
        same = [row.seconds for row in alike if row.epochs == job.budget.epochs]
        if same:
            seconds += same[0]
        elif alike:
            seconds += max(row.seconds_per_epoch for row in alike) * job.budget.epochs
        else:
            seconds += _rough_seconds(job, interactions)
            guessed += 1
    return Duration(seconds=seconds, trainings=len(jobs), guessed=guessed)


def _rough_seconds(job: Job, interactions: int | None) -> float:
    """A guess, in proportion to epochs and training interactions; ml-100k's if None."""
    size = (interactions or _MEASURED_ON) / _MEASURED_ON
    if judged(job.model).loader in (None, "elsewhere"):
        return _COMPUTED * size
    return _SECONDS_PER_EPOCH.get(job.model, _OTHERS) * job.budget.epochs * size


def _past() -> list[_Past]:
    """Means over past trainings, by data set, model and budget; none where there are no results."""
    if not has_database():
        return []
    try:
        with reading() as connection:
            past = connection.execute(script("inspection/past_trainings")).fetchall()
            return [_Past(*row) for row in past]
    except (duckdb.CatalogException, BadInput):
        return []  # No table yet, or busy: an estimate is not worth waiting for.


def money(pipelines: Iterable[tuple[Pipeline, Sequence[Side]]]) -> Money:
    """Estimate what the LLM's answers still cost; equal profiles count once.

    Each pipeline comes with the sides whose profiles it needs.
    """
    bills: dict[str, tuple[int, float | None]] = {}
    for pipeline, sides in pipelines:
        for side in sides:
            config = pipeline.profiles_of(side)
            split = "" if config.sees_nothing and side == "items" else pipeline.split.digest()
            key = f"{side} {config.digest()} {pipeline.dataset.digest()} {split}"
            asks = config.asks and pipeline.embeddings_of(side).provider != "import"
            asks = asks and "profiles" in pipeline.targets.active_sources
            if asks and key not in bills:
                request = request_of(pipeline, side)
                with answer_store() as store:
                    bill = bill_of(request, store, 0)
                bills[key] = len(bill.unanswered), to_pay(request.config, bill)
    paid = [usd for _, usd in bills.values()]
    known = [usd for usd in paid if usd is not None]
    return Money(
        questions=sum(questions for questions, _ in bills.values()),
        usd=sum(known) if len(known) == len(paid) else None,
    )
