"""The flow of an experiment: a grid of pipelines in, one comparison over all points out."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.grid.hyperparameter_search import ArmSearch, run_searches, searches_of, settled
from flows.steps.comparison import Summary, compare
from flows.steps.preparation import Prepared, arms_of, prepare
from flows.steps.stage_runner import CachedStages, NotCached, StageRunner
from flows.steps.trainings import TrainingPool, Trainings, training_pool
from models.config import ArmName
from models.errors import BadInput, Unavailable
from models.experiments.grid import Point
from tasks.config.experiment_file import ExperimentPoint, LoadedExperiment, load_experiment
from tasks.evaluation.inputs import Part, PointResult, PointState
from tasks.results.queries import Tried, earlier_trials


class PointSummary(PointResult):
    """How a point ended, and how many of its trainings ran, were cached or failed."""

    ran: int = 0
    cached: int = 0
    failed: int = 0


class ExperimentSummary(Summary):
    """The result of an experiment.

    `ran`, `cached` and `failed` count different trainings: one that points share counts once.
    """

    points: list[PointSummary]
    ran: int
    cached: int
    failed: int
    trials: int

    @property
    def ok(self) -> bool:
        """Whether no point failed."""
        return all(point.state != "failed" for point in self.points)


@flow(name="experiment")
def experiment(
    config: Path = Path("configs/experiments/controls.yaml"),
    overrides: Sequence[str] = (),
    workers: int | None = None,
) -> ExperimentSummary:
    """Run every point of an experiment; a point that fails is recorded, and the others go on.

    For `overrides` see `tasks.config.experiment_file.load_experiment`; without `workers`, so many
    trainings run at the same time as the most that a point's `training.workers` says.

    Raises:
        BadInput: if the file, or any point of it, is wrong; nothing has run then.
    """
    loaded = load_experiment(config, overrides)
    pool = training_pool(loaded.points[0].pipeline, workers or loaded.workers)
    summary = _compared(loaded, StageRunner(), pool)
    for point in summary.points:
        if point.state == "failed":
            get_run_logger().error("point %s failed: %s", point.point, point.reason)
    return summary


def run(config: Path, overrides: Sequence[str], workers: int | None = None) -> ExperimentSummary:
    """Answer from the cache if it holds every result; otherwise run the flow above."""
    with suppress(NotCached):
        loaded = load_experiment(config, overrides)
        return _compared(loaded, CachedStages(), nullcontext(TrainingPool()))
    return experiment(config, overrides, workers)


def _compared(
    loaded: LoadedExperiment, stages: StageRunner, trainings: Trainings
) -> ExperimentSummary:
    searches = searches_of(loaded, stages)
    pools = loaded.pools
    points = [_PointRun(chosen, pools[chosen.name]) for chosen in loaded.points]
    with trainings as pool:
        run_searches(searches, stages, pool)
        earlier = earlier_trials(loaded.name) if searches else set()
        for point in points:
            point.start(searches, earlier, loaded.config.settings, stages, pool)
        pool.wait_for_all()
        for point in points:
            point.collect(pool)
    stages.add_trainings(pool.ended())
    excluded = [_result(point, "excluded", point.excluded) for point in loaded.excluded]
    results = [*(point.result() for point in points), *excluded]
    trials = [trial for search in searches for trial in search.marked_trials()]
    parts = [part for point in points if point.reason is None for part in point.parts]
    summary = compare(loaded.name, parts, stages, results, trials)
    keys = {point.chosen.name: point.keys() for point in points}
    return ExperimentSummary(
        **dict(summary),
        points=[
            PointSummary(**dict(result), **pool.counts(keys.get(result.point, ())))
            for result in results
        ],
        **pool.counts(pool.jobs),
        trials=len(trials),
    )


@dataclass
class _PointRun:
    """A point at work, with its pipelines whose trainings have started, and have ended well."""

    chosen: ExperimentPoint
    pool: str | None
    prepared: list[Prepared] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    reason: str | None = None

    def start(
        self,
        searches: Sequence[ArmSearch],
        earlier: Collection[Tried],
        settings: Mapping[str, Mapping[ArmName, Any]],
        stages: StageRunner,
        pool: TrainingPool,
    ) -> None:
        """Do what comes before the trainings, and start those that are ready.

        The pipelines are the point's own, or each arm's best with the trials before it.
        """
        own = {(one.model, one.arm): one for one in searches if one.chosen is self.chosen}
        with self._failing_alone():
            arms = arms_of(self.chosen.pipeline, stages) if own else ()
            searched = ((search.best_pipeline(), search.tried(earlier)) for search in own.values())
            rest = ((self.chosen.varied(*pair, {}), 0) for pair in arms if pair not in own)
            fixed = () if own else settled(self.chosen, settings, stages)
            for pipeline, trials in chain(searched, rest, ((one, 0) for one in fixed)):
                prepared = prepare(pipeline, stages, point=self.chosen.name, search_trials=trials)
                self.prepared.append(prepared)
                pool.start(*prepared.requests)

    def collect(self, pool: TrainingPool) -> None:
        """Take the results of all trainings."""
        with self._failing_alone():
            for prepared in self.prepared if self.reason is None else ():
                self.parts.append(pool.trained(prepared))

    @contextmanager
    def _failing_alone(self) -> Iterator[None]:
        """Record an error as the point's, so that the others go on; a lost cluster ends all."""
        try:
            yield
        except (NotCached, Unavailable):
            raise
        except BadInput as error:
            self.reason = str(error)
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"

    def result(self) -> PointResult:
        state: PointState = "ok" if self.reason is None else "failed"
        return _result(self.chosen.point, state, self.reason, self.pool)

    def keys(self) -> set[str]:
        """Keys of its trainings."""
        return {request.key for prepared in self.prepared for request in prepared.requests}


def _result(
    point: Point, state: PointState, reason: str | None, pool: str | None = None
) -> PointResult:
    overrides = json.dumps(point.overrides, default=str)
    return PointResult(point=point.name, pool=pool, overrides=overrides, state=state, reason=reason)
