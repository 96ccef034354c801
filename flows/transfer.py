"""The main flow: one configuration in, one comparison out."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from prefect import State, flow
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel

from models.config import Job, Pipeline, Tap
from models.errors import BadInput
from tasks import configuration
from tasks.caching import Stage
from tasks.embeddings import embeddings
from tasks.evaluation import evaluation
from tasks.handoffs import Difference, Embedded, Interactions, Profiled, Splits, Targeted, Trained
from tasks.import_files import take_in_embeddings, take_in_profiles
from tasks.interactions import interactions, raw_files
from tasks.profiles import profiles
from tasks.report import report
from tasks.split import split, split_files
from tasks.targets import targets
from tasks.training import tapped, training
from tasks.worker import worker_processes

StageState = Literal["ran", "cached", "partial"]


class StageRecord(BaseModel):
    """How a stage went: computed, taken from the cache, or some of both."""

    name: str
    model: str | None = None
    arm: str | None = None
    state: StageState
    seconds: float


class Summary(BaseModel):
    """What a run hands back: its stages, the comparison, and where the report is."""

    experiment: str
    stages: list[StageRecord]
    comparison: list[Difference]
    report: Path


@flow(name="knowledge-transfer")
def knowledge_transfer(
    config: Pipeline | Path = Path("configs/ml-100k.yaml"), overrides: Sequence[str] = ()
) -> Summary:
    """Train every model with and without knowledge transfer, and compare.

    Args:
        config: a pipeline, or the path of its YAML file.
        overrides: `dotted.key=value` texts applied over the file.
    """
    pipeline = config if isinstance(config, Pipeline) else configuration.load(config, overrides)
    prompt = configuration.prompt_of(pipeline)
    taps = tapped(pipeline.models)
    stages = Stages()

    data = stages.run(interactions, pipeline.dataset, raw_files(pipeline.dataset))
    _require_enough_items(pipeline, data)
    parts = stages.run(split, pipeline.split, data.interactions, split_files(pipeline.split))
    profiled = embedded = None
    targeted: dict[str, Targeted] = {}
    if "transfer" in pipeline.training.arms:
        widths = _target_widths(pipeline, taps)
        profiled, embedded = _describe_users(pipeline, prompt, data, parts, stages)
        by_width = {
            width: stages.run(targets, pipeline.targets, embedded.embeddings, width)
            for width in sorted(set(widths.values()))
        }
        targeted = {model: by_width[width] for model, width in widths.items()}
    trained = _train_all(pipeline, taps, data, parts, targeted, stages)
    evaluated = stages.run(evaluation, pipeline, parts, trained, profiled, embedded)
    reported = stages.run(report, pipeline, evaluated, trained, profiled, embedded)
    return Summary(
        experiment=pipeline.experiment,
        stages=stages.records,
        comparison=list(evaluated.differences),
        report=reported.page.file,
    )


def _describe_users(
    pipeline: Pipeline, prompt: str, data: Interactions, parts: Splits, stages: "Stages"
) -> tuple[Profiled | None, Embedded]:
    """Profiles and their embeddings; vectors made elsewhere need no profiles."""
    vectors = take_in_embeddings(pipeline.embeddings)
    if vectors:
        return None, stages.run(embeddings, pipeline.embeddings, None, parts.train, vectors)
    texts = take_in_profiles(pipeline.profiles)
    profiled = stages.run(profiles, pipeline.profiles, prompt, parts.train, data.items, texts)
    return profiled, stages.run(embeddings, pipeline.embeddings, profiled.profiles)


class Stages:
    """Runs stages one after the other and keeps a record of each."""

    def __init__(self) -> None:
        self.records: list[StageRecord] = []

    def run(self, stage: Stage, *inputs: Any) -> Any:
        """Run a stage here; its exception, if any, is raised here too."""
        began = perf_counter()
        state: State[Any] = stage(*inputs, return_state=True)  # type: ignore[assignment]
        result = state.result()
        self.records.append(
            StageRecord(
                name=stage.name,
                state=_state_of(state, result),
                seconds=round(perf_counter() - began, 3),
            )
        )
        return result

    def add_trainings(self, trained: Sequence[tuple[Job, State[Trained], Trained]]) -> None:
        """Record trainings that ran elsewhere: one entry per model and arm, over all seeds."""
        for (model, arm), group in groupby(trained, key=lambda t: (t[0].model, t[0].arm)):
            runs = list(group)
            ran = [result for _, state, result in runs if state.name != "Cached"]
            state: StageState = "cached" if not ran else "ran"
            if 0 < len(ran) < len(runs):
                state = "partial"
            seconds = round(sum(result.train_seconds for result in ran), 3)
            self.records.append(
                StageRecord(name="training", model=model, arm=arm, state=state, seconds=seconds)
            )


def _state_of(state: State[Any], result: Any) -> StageState:
    if state.name == "Cached":
        return "cached"
    reused = {Profiled: "answers_cached", Embedded: "texts_cached"}
    field = next((reused[kind] for kind in reused if isinstance(result, kind)), None)
    return "partial" if field and getattr(result, field) else "ran"


def _train_all(
    pipeline: Pipeline,
    taps: dict[str, tuple[Tap, int]],
    data: Interactions,
    parts: Splits,
    targeted: dict[str, Targeted],
    stages: Stages,
) -> list[Trained]:
    """Train every model, arm and seed in worker processes.

    All trainings end before a failure is raised, so that none is lost to another's mistake.
    """
    jobs = [
        Job.of(pipeline, model, arm, seed, taps[model][0])
        for model in pipeline.models
        for arm in pipeline.training.arms
        for seed in pipeline.training.seeds
    ]
    workers = min(pipeline.training.workers, len(jobs))
    runner: ThreadPoolTaskRunner[Trained] = ThreadPoolTaskRunner(max_workers=workers)
    with worker_processes(workers), runner:
        futures: list[PrefectFuture[Trained]] = [
            runner.submit(
                training,
                parameters={
                    "job": job,
                    "train_pairs": parts.train,
                    "valid_pairs": parts.valid,
                    "users": data.users,
                    "items": data.items,
                    "targets": targeted[job.model].targets if job.transfer else None,
                },
            )
            for job in jobs
        ]
        wait(futures)
        results = [future.result() for future in futures]
    states = [future.state for future in futures]
    stages.add_trainings(list(zip(jobs, states, results, strict=True)))
    return results


def _target_widths(pipeline: Pipeline, taps: dict[str, tuple[Tap, int]]) -> dict[str, int]:
    """The width of each model's targets: that of its tapped layer."""
    asked = pipeline.targets.width
    for model, (tap, width) in taps.items():
        if asked not in (None, width):
            raise BadInput(
                f"targets.width is {asked}, but the tapped layer {tap.name} of {model} is {width} "
                f"wide; leave targets.width empty, or set models.{model}.tap with start and stop"
            )
    return {model: width for model, (_, width) in taps.items()}


def _require_enough_items(pipeline: Pipeline, data: Interactions) -> None:
    longest = max(pipeline.evaluation.k)
    if longest > data.items.rows:
        raise BadInput(
            f"evaluation.k: {longest} is larger than the number of items, {data.items.rows}; "
            "remove it"
        )
