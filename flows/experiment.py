"""The flow of an experiment: a grid of pipelines in, one comparison over all points out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from flows.grid.checks import checked, workers_of
from flows.grid.hyperparameter_search import Searched, run_searches
from flows.grid.training_pool import Pool
from flows.steps.knowledge import map_of
from flows.steps.preparation import Bench, Prepared
from flows.steps.stage_runner import SharedStages
from flows.steps.trainings import predict_all
from models.config import Pipeline
from models.errors import BadInput, Unavailable
from tasks.config.experiment_file import Chosen, Loaded, load_experiment
from tasks.evaluation.evaluation_task import evaluation, show_in_prefect
from tasks.evaluation.inputs import Part, PointResult, PointState
from tasks.evaluation.outputs import Evaluated, Reference
from tasks.execution.progress import track
from tasks.execution.stage_record import StageRecord
from tasks.execution.worker_pool import crew, ended_at_once
from tasks.report.report_task import report
from tasks.training.outputs import Trained


class PointSummary(BaseModel):
    """What became of a point, and of its trainings."""

    point: str
    state: PointState
    reason: str | None = None
    ran: int = 0
    cached: int = 0
    failed: int = 0


class ExperimentSummary(BaseModel):
    """What an experiment hands back.

    `ran`, `cached` and `failed` count different trainings: one that points share counts once.
    """

    experiment: str
    points: list[PointSummary]
    ran: int
    cached: int
    failed: int
    trials: int
    stages: list[StageRecord]
    comparison: list[dict[str, Any]]
    """One row per arm, metric and cut-off; see `models.statistics.contrasts.Contrast.row`."""
    references: list[Reference]
    report: Path | None
    """None where every point failed."""

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

    Args:
        config: the experiment's YAML file.
        overrides: `dotted.key=value` texts, see `tasks.config.experiment_file.load_experiment`.
        workers: trainings at the same time; None means the most that a point's
            `training.workers` says.

    Raises:
        BadInput: if the file, or any point of it, is wrong; nothing has run then.
    """
    loaded = load_experiment(config, overrides)
    bench = Bench(SharedStages())
    searches = checked(loaded, bench)
    points = [_Running(of) for of in loaded.points]
    n = workers or workers_of(loaded)
    runner: ThreadPoolTaskRunner[Trained] = ThreadPoolTaskRunner(max_workers=n)
    common = loaded.points[0].pipeline
    with track(f"experiment {loaded.name}", 1) as tracker, crew(common, n), runner, ended_at_once():
        pool = Pool(runner, tracker)
        if searches:
            run_searches(searches, bench, pool)
        for point in points:
            point.prepare(bench, searches, pool)
        pool.settle_all()
        for point in points:
            point.collect(pool, runner)
    trials = [trial for search in searches for trial in search.told()]
    outcomes = [*(point.outcome() for point in points), *_excluded(loaded)]
    parts = [part for point in points for part in point.parts()]
    bench.stages.add_ended(
        [(job, key not in pool.ran, pool.results[key]) for key, job in pool.jobs.items()]
    )
    evaluated = bench.stages.run(evaluation, loaded.name, parts, outcomes, trials)
    show_in_prefect(evaluated, outcomes)
    page = _page(loaded.name, parts, evaluated, bench) if parts else None
    for outcome in outcomes:
        if outcome.state == "failed":
            get_run_logger().error("point %s failed: %s", outcome.point, outcome.reason)
    return ExperimentSummary(
        experiment=loaded.name,
        points=[_summary(outcome, points, pool) for outcome in outcomes],
        **_counts(pool, pool.jobs),
        trials=len(trials),
        stages=bench.stages.records,
        comparison=[contrast.row() for contrast in evaluated.contrasts],
        references=list(evaluated.references),
        report=page,
    )


def _page(name: str, parts: list[Part], evaluated: Evaluated, bench: Bench) -> Path:
    """One report over all points: what they share is shown once, the first one's map alone."""
    first = parts[0]
    pipeline = first.pipeline.model_copy(update={"experiment": name})
    trained = {of.weights.sha256 + of.rankings.sha256: of for part in parts for of in part.trained}
    described = {
        (of.side, of.embedded.embeddings.sha256): of for part in parts for of in part.described
    }
    maps = [map_of(of, first.splits, first.items) for of in first.described]
    records = list(bench.stages.records)
    reported = bench.stages.run(
        report, pipeline, evaluated, [*trained.values()], [*described.values()], maps, records
    )
    return Path(reported.page.file)


@dataclass
class _Running:
    """A point at work."""

    chosen: Chosen
    prepared: list[tuple[Prepared, int]] = field(default_factory=list)
    """With the number of trials before."""
    trained: list[list[Trained]] = field(default_factory=list)
    reason: str | None = None

    def prepare(self, bench: Bench, searches: Iterable[Searched], pool: Pool) -> None:
        """Do what comes before the trainings, and let those start that are ready."""
        try:
            for pipeline, trials in self._pipelines(bench, searches):
                prepared = bench.prepare(pipeline)
                self.prepared.append((prepared, trials))
                for request in prepared.requests:
                    pool.start(request)
        except Unavailable:
            raise
        except Exception as error:
            self._fail(error)

    def _pipelines(
        self, bench: Bench, searches: Iterable[Searched]
    ) -> Iterable[tuple[Pipeline, int]]:
        """The point's own, or each arm's with its best setting."""
        mine = {(of.model, of.arm): of for of in searches if of.chosen is self.chosen}
        if not mine:
            yield self.chosen.pipeline, 0
            return
        for of in mine.values():
            yield of.pipeline(), len(of.trials)
        arms = dict.fromkeys((job.model, job.arm) for job in bench.jobs(self.chosen.pipeline))
        for model, arm in arms:
            if (model, arm) not in mine:
                yield self.chosen.varied(model, arm, {}), 0

    def collect(self, pool: Pool, runner: ThreadPoolTaskRunner[Trained]) -> None:
        """Take the results, and where likes are predicted, predict those of the test part."""
        for prepared, _ in self.prepared if self.reason is None else ():
            results = [pool.results[request.key] for request in prepared.requests]
            failures = [of for of in results if not isinstance(of, Trained)]
            if failures:
                self._fail(failures[0])
                return
            try:
                done = [of for of in results if isinstance(of, Trained)]
                inputs = [request.inputs for request in prepared.requests]
                test = prepared.parts.test
                self.trained.append(predict_all(prepared.pipeline, done, inputs, test, runner))
            except Exception as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        known = isinstance(error, BadInput)
        self.reason = str(error) if known else f"{type(error).__name__}: {error}"

    def outcome(self) -> PointResult:
        """What became of it."""
        return PointResult(
            point=self.chosen.name,
            overrides=json.dumps(self.chosen.point.overrides, default=str),
            state="ok" if self.reason is None else "failed",
            reason=self.reason,
        )

    def parts(self) -> list[Part]:
        """What is evaluated of it: nothing, if it failed."""
        if self.reason is not None:
            return []
        return [
            Part(
                point=self.chosen.name,
                pipeline=prepared.pipeline,
                splits=prepared.parts,
                described=prepared.described,
                items=prepared.data.items,
                trained=tuple(trained),
                search_trials=trials,
            )
            for (prepared, trials), trained in zip(self.prepared, self.trained, strict=True)
        ]


def _excluded(loaded: Loaded) -> list[PointResult]:
    return [
        PointResult(
            point=point.name,
            overrides=json.dumps(point.overrides, default=str),
            state="excluded",
            reason=point.excluded,
        )
        for point in loaded.excluded
    ]


def _summary(outcome: PointResult, points: Sequence[_Running], pool: Pool) -> PointSummary:
    keys = {
        request.key
        for point in points
        if point.chosen.name == outcome.point
        for prepared, _ in point.prepared
        for request in prepared.requests
    }
    known = {"point": outcome.point, "state": outcome.state, "reason": outcome.reason}
    return PointSummary.model_validate(known | _counts(pool, keys))


def _counts(pool: Pool, keys: Iterable[str]) -> dict[str, Any]:
    failed = {key for key in keys if not isinstance(pool.results.get(key), Trained)}
    ran = {key for key in keys if key in pool.ran} - failed
    return {"ran": len(ran), "failed": len(failed), "cached": len([*keys]) - len(ran | failed)}
