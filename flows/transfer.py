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

from models.config import BRIDGING, CONTROLS, KAR_MODELS, SIDES, Arm, Job, Pipeline, Side, Targets
from models.errors import BadInput
from tasks import configuration
from tasks.caching import Stage
from tasks.embeddings import embeddings
from tasks.evaluation import evaluation
from tasks.handoffs import (
    Described,
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
from tasks.training import Entrances, entrances, predictions, training
from tasks.worker import worker_processes

Training = tuple[str, Arm, int]
"""Model, arm and seed."""
StageState = Literal["ran", "cached", "partial"]
Knowledge = dict[Training, dict[Side, Targeted]]


class StageRecord(BaseModel):
    """How a stage went: computed, taken from the cache, or some of both."""

    name: str
    side: Side | None = None
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
    entered = entrances(pipeline)
    sides = _sides(pipeline, entered)
    prompts = {side: configuration.prompt_of(pipeline, side) for side in sides}
    stages = Stages()

    data = stages.run(interactions, pipeline.dataset, raw_files(pipeline.dataset))
    _require_enough_items(pipeline, data)
    parts = stages.run(split, pipeline.split, data.interactions, split_files(pipeline.split))
    forms = {side: _target_forms(pipeline, entered, side) for side in sides}
    described = [_describe(pipeline, side, prompts[side], data, parts, stages) for side in sides]
    targeted: Knowledge = {}
    for of in described:
        made = _make_targets(forms[of.side], of, stages)
        _add_per_training(targeted, of.side, pipeline, made, parts, data, stages)
        _add_features(targeted, of, pipeline, stages)
    trained = _train_all(pipeline, entered, data, parts, targeted, stages)
    evaluated = stages.run(evaluation, pipeline, parts, trained, described)
    reported = stages.run(report, pipeline, evaluated, trained, described)
    return Summary(
        experiment=pipeline.experiment,
        stages=stages.records,
        comparison=list(evaluated.differences),
        references=list(evaluated.references),
        report=reported.page.file,
    )


def _sides(pipeline: Pipeline, entered: Entrances) -> tuple[Side, ...]:
    """Whose profiles the run needs."""
    if set(pipeline.training.arms) == {"baseline"}:
        return ()
    if "kar" in pipeline.training.arms:
        return SIDES
    return tuple(side for side in SIDES if any(side in of_model for of_model in entered.values()))


def _describe(
    pipeline: Pipeline,
    side: Side,
    prompt: str,
    data: Interactions,
    parts: Splits,
    stages: "Stages",
) -> Described:
    """Profiles and their embeddings; vectors made elsewhere need no profiles."""
    of_profiles, of_vectors = pipeline.profiles_of(side), pipeline.embeddings_of(side)
    vectors = take_in_embeddings(of_vectors)
    if vectors and side == "items" and pipeline.item_embeddings is None:
        raise BadInput(
            "embeddings imports the users' vectors, but a transfer needs the items' too: set "
            "item_embeddings"
        )
    if vectors:
        embedded = stages.run(embeddings, of_vectors, None, parts.train, vectors, side, side=side)
        return Described(side=side, profiled=None, embedded=embedded)
    texts = take_in_profiles(of_profiles)
    profiled = stages.run(
        profiles, of_profiles, prompt, parts.train, data.items, texts, side, side=side
    )
    embedded = stages.run(embeddings, of_vectors, profiled.profiles, side=side)
    return Described(side=side, profiled=profiled, embedded=embedded)


class Stages:
    """Runs stages one after the other and keeps a record of each."""

    def __init__(self) -> None:
        self.records: list[StageRecord] = []

    def run(self, stage: Stage, *inputs: Any, side: Side | None = None) -> Any:
        """Run a stage here; its exception, if any, is raised here too.

        Args:
            stage: the stage.
            inputs: its arguments.
            side: whom it concerns, for the record.
        """
        began = perf_counter()
        state: State[Any] = stage(*inputs, return_state=True)  # type: ignore[assignment]
        result = state.result()
        self.records.append(
            StageRecord(
                name=stage.name,
                side=side,
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
    entered: Entrances,
    data: Interactions,
    parts: Splits,
    targeted: Knowledge,
    stages: Stages,
) -> list[Trained]:
    """Train every model, arm and seed in worker processes.

    All trainings end before a failure is raised, so that none is lost to another's mistake.
    """
    jobs = pipeline.jobs(
        {model: {side: at.tap for side, at in sides.items()} for model, sides in entered.items()}
    )
    workers = min(pipeline.training.workers, len(jobs))
    runner: ThreadPoolTaskRunner[Trained] = ThreadPoolTaskRunner(max_workers=workers)
    inputs = [
        {
            "train_pairs": parts.train,
            "valid_pairs": parts.valid,
            "users": data.users,
            "items": data.items,
            "targets": {
                side: of.targets
                for side, of in targeted.get((job.model, job.arm, job.seed), {}).items()
            },
        }
        for job in jobs
    ]
    with worker_processes(workers), runner:
        futures: list[PrefectFuture[Trained]] = [
            runner.submit(training, parameters={"job": job, **given})
            for job, given in zip(jobs, inputs, strict=True)
        ]
        wait(futures)
        results = [future.result() for future in futures]
        states = [future.state for future in futures]
        if pipeline.evaluation.like_from is not None:
            futures = [
                runner.submit(
                    predictions, parameters={"trained": of, "test_pairs": parts.test, **given}
                )
                for of, given in zip(results, inputs, strict=True)
            ]
            wait(futures)
            results = [future.result() for future in futures]
    stages.add_trainings(list(zip(jobs, states, results, strict=True)))
    return results


def _make_targets(
    forms: dict[str, tuple[Targets, int | None]], described: Described, stages: Stages
) -> dict[str, Targeted]:
    """Each model's targets; models that want the same share them."""
    made: dict[tuple[str | None, int | None], Targeted] = {}
    for settings, width in forms.values():
        if (settings.reduction, width) not in made:
            made[settings.reduction, width] = stages.run(
                targets, settings, described.embedded.embeddings, width, side=described.side
            )
    return {model: made[of.reduction, width] for model, (of, width) in forms.items()}


def _add_per_training(
    targeted: Knowledge,
    side: Side,
    pipeline: Pipeline,
    made: dict[str, Targeted],
    parts: Splits,
    data: Interactions,
    stages: Stages,
) -> None:
    """Add one side's targets of every training with knowledge, controls included."""
    for model, of_profiles in made.items():
        settings = pipeline.targets_of(model)
        for arm in pipeline.training.arms:
            for seed in pipeline.training.seeds if arm not in ("baseline", "kar") else ():
                targets_of_arm = of_profiles
                if arm in CONTROLS:
                    targets_of_arm = stages.run(
                        controls,
                        settings,
                        arm,
                        of_profiles.targets,
                        parts.train,
                        data.items,
                        seed,
                        side=side,
                    )
                targeted.setdefault((model, arm, seed), {})[side] = targets_of_arm


def _add_features(
    targeted: Knowledge, described: Described, pipeline: Pipeline, stages: Stages
) -> None:
    """Add one side's whole embeddings for the arm kar, which takes them as features."""
    models = [model for model in pipeline.models if model in KAR_MODELS]
    if "kar" not in pipeline.training.arms or not models:
        return
    # Features stay as small as the model's own: text models give vectors of unit length.
    settings = pipeline.targets.model_copy(update={"reduction": "none", "scale": "none"})
    whole = stages.run(targets, settings, described.embedded.embeddings, None, side=described.side)
    for model in models:
        for seed in pipeline.training.seeds:
            targeted.setdefault((model, "kar", seed), {})[described.side] = whole


def _target_forms(
    pipeline: Pipeline, entered: Entrances, side: Side
) -> dict[str, tuple[Targets, int | None]]:
    """How each model's targets are made, and how wide: as its tapped layer, if not otherwise.

    A model without a tap takes whole embeddings.
    """
    asked = pipeline.targets.width
    forms: dict[str, tuple[Targets, int | None]] = {}
    for model, of_model in entered.items():
        if side not in of_model:
            continue
        tap, width = of_model[side].tap, of_model[side].width
        settings = pipeline.targets_of(model)
        if tap is None:
            forms[model] = settings.model_copy(update={"reduction": "none"}), None
            continue
        bridging = pipeline.transfer_of(model).alignment in BRIDGING
        if asked not in (None, width) and not bridging:
            raise BadInput(
                f"targets.width is {asked}, but the tapped layer {tap.name} of {model} is {width} "
                f"wide; leave targets.width empty, or set models.{model}.tap with start and stop"
            )
        forms[model] = settings, asked or width
    return forms


def _require_enough_items(pipeline: Pipeline, data: Interactions) -> None:
    longest = max(pipeline.evaluation.k)
    if longest > data.items.rows:
        raise BadInput(
            f"evaluation.k: {longest} is larger than the number of items, {data.items.rows}; "
            "remove it"
        )
