"""What an experiment will do, looked up before anything starts."""

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from flows.grid.checks import checked, workers_of
from flows.grid.hyperparameter_search import Searched, recall_searches
from flows.steps.knowledge import sides_of
from flows.steps.preparation import Bench, Request
from flows.steps.stage_runner import NotCached, Peeking
from models.config import BASELINE, Job, Pipeline, Side
from tasks.config.experiment_file import Chosen, Loaded
from tasks.execution.cache_key import cache_key
from tasks.inspection.time_and_cost import Duration, Money, duration, money

T = TypeVar("T")


class PlannedPoint(BaseModel):
    """A point that will be run; `reason` says why one will not."""

    point: str
    trainings: int
    cached: int
    reason: str | None = None


class Plan(BaseModel):
    """What will run.

    Attributes:
        trainings: of all points, each counted wherever it occurs.
        different: of these, what one training may serve several points.
        cached: of the different ones, those that are done.
        trials: of searches, all arms together.
        trials_cached: those whose trainings are done.
        time: of what is left, trials included.
    """

    experiment: str
    points: list[PlannedPoint]
    excluded: list[PlannedPoint]
    models: list[str]
    arms: list[str]
    seeds: list[int]
    trainings: int
    different: int
    cached: int
    trials: int
    trials_cached: int
    workers: int
    time: Duration
    money: Money


def plan(loaded: Loaded, workers: int | None = None) -> Plan:
    """Look every training's cache key up, without running a stage that trains, asks or embeds.

    Raises:
        BadInput: if the file, or any point of it, is wrong.
    """
    bench = Bench(Peeking())
    searches = checked(loaded, bench)
    looked = [_Look(bench, chosen, searches) for chosen in loaded.points]
    done: dict[str, bool] = {}
    missing: dict[str, tuple[str, Job]] = {}
    for look in looked:
        done |= look.done
        missing |= look.missing
    stopped = recall_searches(searches, bench)
    trials = sum(of.search.trials for of in searches)
    trials_cached = sum(len(of.trials) for of in searches)
    left = [*missing.values(), *_left_of_trials(searches)]
    pipelines = [chosen.pipeline for chosen in loaded.points]
    return Plan(
        experiment=loaded.name,
        points=[look.planned() for look in looked],
        excluded=[
            PlannedPoint(point=of.name, trainings=0, cached=0, reason=of.excluded)
            for of in loaded.excluded
        ],
        models=_each(model for of in pipelines for model in of.models),
        arms=_each(arm for of in pipelines for arm in of.training.arms),
        seeds=_each(seed for of in pipelines for seed in of.training.seeds),
        trainings=sum(len(look.done) for look in looked),
        different=len(done),
        cached=sum(done.values()),
        trials=trials,
        trials_cached=trials_cached,
        workers=workers or workers_of(loaded),
        time=duration(left, _interactions([*stopped, *(r for of in looked for r in of.requests)])),
        money=money([(of, _asking_sides(of, bench)) for of in pipelines]),
    )


class _Look:
    """One point's trainings: known by key where all before them is cached."""

    def __init__(self, bench: Bench, chosen: Chosen, searches: list[Searched]) -> None:
        self._chosen = chosen
        self.requests: list[Request] = []
        self.done: dict[str, bool] = {}
        self.missing: dict[str, tuple[str, Job]] = {}
        pipeline = chosen.pipeline
        searched = {(of.model, of.arm) for of in searches if of.chosen is chosen}
        for job in bench.jobs(pipeline):
            key = _guess(pipeline, job, chosen.name if searched else None)
            self.done[key], self.missing[key] = False, (pipeline.dataset.name, job)
        if not searched:
            self._look_up(bench, pipeline)

    def _look_up(self, bench: Bench, pipeline: Pipeline) -> None:
        for request in _requests(bench, pipeline):
            guess = _guess(pipeline, request.job, None)
            self.requests.append(request)
            self.done.pop(guess)
            self.missing.pop(guess)
            self.done[request.key] = request.cached() is not None
            if not self.done[request.key]:
                self.missing[request.key] = (pipeline.dataset.name, request.job)

    def planned(self) -> PlannedPoint:
        return PlannedPoint(
            point=self._chosen.name, trainings=len(self.done), cached=sum(self.done.values())
        )


def _requests(bench: Bench, pipeline: Pipeline) -> tuple[Request, ...]:
    """All trainings, or baselines alone where targets are not there yet, or none."""
    try:
        return bench.prepare(pipeline).requests
    except NotCached:
        pass
    if BASELINE not in pipeline.training.arms:
        return ()
    training = pipeline.training.model_copy(update={"arms": (BASELINE,)})
    return bench.prepare(pipeline.model_copy(update={"training": training})).requests


def _guess(pipeline: Pipeline, job: Job, point: str | None) -> str:
    """Stands for a key that is not known yet: alike for points whose knowledge is made alike."""
    known = (
        pipeline.profiles_of(side).identity() | pipeline.embeddings_of(side).identity()
        for side in job.sides
    )
    settings = [list(known), pipeline.targets_of(job.model).identity() if job.sides else None]
    ground = [pipeline.dataset, pipeline.split]
    return cache_key("unknown", 0, {"job": job, "of": settings, "ground": ground, "point": point})


def _left_of_trials(searches: Iterable[Searched]) -> list[tuple[str, Job]]:
    """The trainings that searches have still to do."""
    left = []
    for of in searches:
        pipeline = of.chosen.pipeline
        job = Job.of(pipeline, of.model, of.arm, pipeline.training.seeds[0], {})
        left += [(pipeline.dataset.name, job)] * (of.search.trials - len(of.trials))
    return left


def _interactions(requests: Iterable[Request]) -> int | None:
    """How many the first training learns from."""
    return next((of.inputs["train_pairs"].rows for of in requests), None)


def _asking_sides(pipeline: Pipeline, bench: Bench) -> tuple[Side, ...]:
    return sides_of(pipeline, bench.entered(pipeline))


def _each(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
