"""A dry run: what an experiment would do, looked up before anything starts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from flows.grid.hyperparameter_search import ArmSearch, recall_searches, searches_of, settled
from flows.steps.knowledge import sides_of
from flows.steps.preparation import Request, jobs_of, prepare, taps_of
from flows.steps.stage_runner import CachedStages, NotCached, StageRunner
from models.config import BASELINE, ArmName, Job, Pipeline
from tasks.config.experiment_file import LoadedExperiment
from tasks.execution.cache_key import cache_key
from tasks.inspection.power import Power, power_of
from tasks.inspection.time_and_cost import Duration, Money, duration, money

T = TypeVar("T")
_Searched = Mapping[tuple[str, str, ArmName], list[Any]]
"""Space and fixed values of each search, by point, model and arm."""


class PlannedPoint(BaseModel):
    """A point that will be run; `reason` says why one will not."""

    point: str
    trainings: int
    cached: int
    reason: str | None = None


class Plan(BaseModel):
    """What will run.

    `trainings` counts a training at each point that it serves; `different` and `cached` count it
    once. `trials` are those of all searches, and `time` is for what is left, trials included.
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
    power: list[Power]


class _Training(NamedTuple):
    """A training of a point; its request is known where all before it is cached."""

    key: str
    dataset: str
    job: Job
    request: Request | None

    @property
    def cached(self) -> bool:
        return self.request is not None and self.request.cached() is not None


def plan(loaded: LoadedExperiment, workers: int | None = None) -> Plan:
    """Look every training's cache key up; nothing is trained, asked or embedded."""
    stages = CachedStages(dry=True)
    searches = searches_of(loaded, stages)
    searched = {
        (search.chosen.name, search.model, search.arm): [search.space, search.fixed]
        for search in searches
    }
    points = {
        chosen.name: [
            training
            for pipeline in settled(chosen, loaded.config.settings, stages)
            for training in _trainings(chosen.name, pipeline, searched, stages)
        ]
        for chosen in loaded.points
    }
    different = {training.key: training for found in points.values() for training in found}
    cached = {key for key, training in different.items() if training.cached}
    stopped = recall_searches(searches, stages)
    missing = [training for key, training in different.items() if key not in cached]
    left = [(training.dataset, training.job) for training in missing] + _trials_left(searches)
    known = [training.request for training in different.values()]
    first = next(filter(None, [*stopped, *known]), None)
    pipelines = [chosen.pipeline for chosen in loaded.points]
    return Plan(
        experiment=loaded.name,
        points=[
            PlannedPoint(
                point=point,
                trainings=len(trainings),
                cached=sum(training.key in cached for training in trainings),
            )
            for point, trainings in points.items()
        ],
        excluded=[
            PlannedPoint(point=point.name, trainings=0, cached=0, reason=point.excluded)
            for point in loaded.excluded
        ],
        models=_each(model for pipeline in pipelines for model in pipeline.models),
        arms=_each(arm for pipeline in pipelines for arm in pipeline.training.arms),
        seeds=_each(seed for pipeline in pipelines for seed in pipeline.training.seeds),
        trainings=sum(map(len, points.values())),
        different=len(different),
        cached=len(cached),
        trials=sum(search.search.trials for search in searches),
        trials_cached=sum(len(search.trials) for search in searches),
        workers=workers or loaded.workers,
        time=duration(left, first.inputs["train_pairs"].rows if first else None),
        money=money(
            [(pipeline, sides_of(pipeline, taps_of(pipeline, stages))) for pipeline in pipelines],
        ),
        power=power_of(pipelines, _replicates(loaded), loaded.name),
    )


def _replicates(loaded: LoadedExperiment) -> int:
    """Planned splits of a point, or the seeds of a single one."""
    splits = max(Counter(loaded.pools.values()).values())
    return splits if splits > 1 else len(loaded.points[0].pipeline.training.seeds)


def _trainings(
    name: str, pipeline: Pipeline, searched: _Searched, stages: StageRunner
) -> list[_Training]:
    """The trainings of a point's pipeline; equal searches of several points choose the same."""
    requests = {} if any(point == name for point, *_ in searched) else _requests(pipeline, stages)
    trainings = []
    for job in jobs_of(pipeline, stages):
        key = _key_in_place(pipeline, job, searched.get((name, job.model, job.arm)))
        request = requests.get(key)
        key = request.key if request else key
        trainings.append(_Training(key, pipeline.dataset.name, job, request))
    return trainings


def _requests(pipeline: Pipeline, stages: StageRunner) -> dict[str, Request]:
    """All trainings, or baselines alone where targets are not there yet, or none."""
    baselines = pipeline.training.model_copy(update={"arms": (BASELINE,)})
    for arms in (pipeline.training, baselines):
        if not set(arms.arms) <= set(pipeline.training.arms):
            return {}
        try:
            prepared = prepare(pipeline.model_copy(update={"training": arms}), stages)
        except NotCached:
            continue
        return {_key_in_place(pipeline, each.job): each for each in prepared.requests}
    return {}


def _key_in_place(pipeline: Pipeline, job: Job, search: list[Any] | None = None) -> str:
    """Stands for a key that is not known yet: alike for points whose knowledge is made alike."""
    known = [
        pipeline.profiles_of(side).identity() | pipeline.embeddings_of(side).identity()
        for side in job.sides
    ]
    targets = pipeline.targets_of(job.model).identity() if job.sides else None
    data = [pipeline.dataset, pipeline.split]
    return cache_key(
        "unknown", 0, {"job": job, "known": [known, targets], "data": data, "search": search}
    )


def _trials_left(searches: Iterable[ArmSearch]) -> list[tuple[str, Job]]:
    """The trainings that searches have still to do, by data set; equal searches do them once."""
    left = {}
    for search in searches:
        pipeline = search.chosen.pipeline
        job = Job.of(pipeline, search.model, search.arm, pipeline.training.seeds[0], {})
        key = _key_in_place(pipeline, job, [search.space, search.fixed])
        n = search.search.trials - len(search.trials)
        left[key] = [(pipeline.dataset.name, job)] * n
    return [*chain.from_iterable(left.values())]


def _each(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
