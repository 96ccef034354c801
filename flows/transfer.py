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

from models.config import BRIDGING, CONTROLS, Arm, Job, Pipeline, Tap, Targets
from models.errors import BadInput
from tasks import configuration
from tasks.caching import Stage
from tasks.embeddings import embeddings
from tasks.evaluation import evaluation
from tasks.handoffs import (
    Difference,
    Embedded,
    Interactions,
    Profiled,
    Reference,
    Splits,
    Targeted,
    Trained,
)
from tasks.import_files import take_in_embeddings, take_in_profiles
from tasks.interactions import interactions, raw_files
from tasks.profiles import profiles
from tasks.report import report
from tasks.split import split, split_files
from tasks.targets import controls, targets
from tasks.training import tapped, training
from tasks.worker import worker_processes

Training = tuple[str, Arm, int]
"""Model, arm and seed."""
StageState = Literal["ran", "cached", "partial"]
Taps = dict[str, tuple[Tap, int] | None]
"""Per model its tap and the width of the tapped layer; None where it has none."""


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
    references: list[Reference]
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
    targeted: dict[Training, Targeted] = {}
    if set(pipeline.training.arms) != {"baseline"}:
        forms = _target_forms(pipeline, taps)
        profiled, embedded = _describe_users(pipeline, prompt, data, parts, stages)
        made = _make_targets(forms, embedded, stages)
        targeted = _per_training(pipeline, made, parts, data, stages)
    trained = _train_all(pipeline, taps, data, parts, targeted, stages)
    evaluated = stages.run(evaluation, pipeline, parts, trained, profiled, embedded)
    reported = stages.run(report, pipeline, evaluated, trained, profiled, embedded)
    return Summary(
        experiment=pipeline.experiment,
        stages=stages.records,
        comparison=list(evaluated.differences),
        references=list(evaluated.references),
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
    taps: Taps,
    data: Interactions,
    parts: Splits,
    targeted: dict[Training, Targeted],
    stages: Stages,
) -> list[Trained]:
    """Train every model, arm and seed in worker processes.

    All trainings end before a failure is raised, so that none is lost to another's mistake.
    """
    jobs = pipeline.jobs({model: found[0] if found else None for model, found in taps.items()})
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
                    "targets": targeted[job.model, job.arm, job.seed].targets
                    if job.transfer
                    else None,
                },
            )
            for job in jobs
        ]
        wait(futures)
        results = [future.result() for future in futures]
    states = [future.state for future in futures]
    stages.add_trainings(list(zip(jobs, states, results, strict=True)))
    return results


def _make_targets(
    forms: dict[str, tuple[Targets, int]], embedded: Embedded, stages: Stages
) -> dict[str, Targeted]:
    """Each model's targets; models that want the same share them."""
    made: dict[tuple[str | None, int], Targeted] = {}
    for settings, width in forms.values():
        if (settings.reduction, width) not in made:
            made[settings.reduction, width] = stages.run(
                targets, settings, embedded.embeddings, width
            )
    return {model: made[of.reduction, width] for model, (of, width) in forms.items()}


def _per_training(
    pipeline: Pipeline,
    made: dict[str, Targeted],
    parts: Splits,
    data: Interactions,
    stages: Stages,
) -> dict[Training, Targeted]:
    """The targets of every training with knowledge, controls included."""
    targeted: dict[Training, Targeted] = {}
    for model, of_profiles in made.items():
        settings = pipeline.targets_of(model)
        for arm in pipeline.training.arms:
            for seed in pipeline.training.seeds:
                if arm in CONTROLS:
                    targeted[model, arm, seed] = stages.run(
                        controls, settings, arm, of_profiles.targets, parts.train, data.items, seed
                    )
                else:
                    targeted[model, arm, seed] = of_profiles
    return targeted


def _target_forms(pipeline: Pipeline, taps: Taps) -> dict[str, tuple[Targets, int]]:
    """How each model's targets are made, and how wide: as its tapped layer, if not otherwise."""
    asked = pipeline.targets.width
    forms: dict[str, tuple[Targets, int]] = {}
    for model, found in taps.items():
        if found is None:
            continue
        tap, width = found
        bridging = pipeline.transfer_of(model).alignment in BRIDGING
        if asked not in (None, width) and not bridging:
            raise BadInput(
                f"targets.width is {asked}, but the tapped layer {tap.name} of {model} is {width} "
                f"wide; leave targets.width empty, or set models.{model}.tap with start and stop"
            )
        forms[model] = (pipeline.targets_of(model), asked or width)
    return forms


def _require_enough_items(pipeline: Pipeline, data: Interactions) -> None:
    longest = max(pipeline.evaluation.k)
    if longest > data.items.rows:
        raise BadInput(
            f"evaluation.k: {longest} is larger than the number of items, {data.items.rows}; "
            "remove it"
        )
