"""Everything that comes before the trainings of a pipeline: a run's, a point's or a night's."""

from dataclasses import dataclass
from typing import Any, Literal

from flows.steps.knowledge import Knowledge, KnowledgeSteps, sides_of, target_forms
from flows.steps.stage_runner import StageRunner
from models.config import ArmName, Job, Pipeline, Side
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions
from tasks.dataset.outputs import Interactions, Splits
from tasks.dataset.requirements import require_enough_items, require_likes
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split, split_files
from tasks.evaluation.inputs import Part
from tasks.nightly.night import Night
from tasks.profiles.knowledge_pack import require_pack
from tasks.storage.artifacts import Handle
from tasks.training.outputs import Trained
from tasks.training.rankings_task import ranking_files, rankings
from tasks.training.tap_points import TapPoints, kept_tap_points
from tasks.training.training_task import training

Weights = Literal["dropped", "kept", "needed"]
"""What a training does with its weights; where they are needed, a result without them is none."""


@dataclass(frozen=True)
class Request:
    """A training to do, or rankings in its place, with the inputs of its stage."""

    job: Job
    inputs: dict[str, Any]
    stage: Any = training
    needs_weights: bool = False

    @property
    def key(self) -> str:
        """The training's cache key: equal for equal trainings."""
        return str(self.stage.key(self.job, **self.inputs))

    def cached(self) -> Trained | None:
        """The model that an earlier run trained, if all that is asked of it is still there."""
        found: Trained | None = self.stage.cached(self.job, **self.inputs)
        lacking = self.needs_weights and found is not None and found.weights is None
        return None if lacking else found

    @property
    def task(self) -> Any:
        """The stage to run, which replaces a cached result that lacks what is asked."""
        found = self.stage.cached(self.job, **self.inputs) if self.needs_weights else None
        return self.stage if found is None else self.stage.afresh()


@dataclass(frozen=True)
class Prepared:
    """A pipeline whose trainings can start; its evaluation's `part` has no trained models yet."""

    part: Part
    data: Interactions
    knowledge: Knowledge
    requests: tuple[Request, ...]


def prepare(
    pipeline: Pipeline,
    stages: StageRunner,
    *,
    point: str | None = None,
    search_trials: int = 0,
    weights: Weights = "kept",
    night: Night | None = None,
) -> Prepared:
    """Run, or find, every stage before the trainings.

    A night brings its data, and the champion's profiles, reducers and weights to start from.
    Predictions of likes come from weights, so those are never dropped.

    Raises:
        BadInput: as the stages do.
        NotCached: in a dry run, for a stage that has not run yet.
    """
    written = pipeline.profiles, pipeline.item_profiles, pipeline.dataset.name
    stages.once(written, lambda: require_pack(pipeline))
    taps = taps_of(pipeline, stages)
    sides = sides_of(pipeline, taps)
    prompts = {side: prompt_of(pipeline, side) for side in sides}
    forms = {side: target_forms(pipeline, taps, side) for side in sides}
    data = night.data if night else load_data(pipeline, stages, pipeline.demographics(sides))
    splits = split_data(pipeline, data, stages)
    steps = KnowledgeSteps(pipeline, data, splits, stages)
    described = steps.describe(prompts, night.earlier_profiles() if night else {})
    knowledge = steps.target(forms, described, night.earlier_reducers() if night else None)
    common = {
        "train_pairs": splits.train,
        "valid_pairs": splits.valid,
        "users": data.users,
        "items": data.items,
        **({"initial": night.starting_point()} if night else {}),
    }
    named = [pipeline.models, pipeline.training.seeds, pipeline.split.seed]
    brought = stages.once(named, lambda: ranking_files(pipeline))
    judge = {"splits": splits, "items": data.items}
    dropped = weights == "dropped" and pipeline.evaluation.like_from is None
    keep = {"keep_weights": False} if dropped else {}
    requests = [
        Request(job, brought[job.model, job.seed] | judge, rankings)
        if (job.model, job.seed) in brought
        else Request(
            job,
            {**common, **keep, "targets": _targets_of(job, knowledge)},
            needs_weights=weights == "needed",
        )
        for job in jobs_of(pipeline, stages)
    ]
    part = Part(
        point=point,
        pipeline=pipeline,
        splits=splits,
        described=tuple(described),
        items=data.items,
        search_trials=search_trials,
    )
    return Prepared(part, data, knowledge, tuple(requests))


def taps_of(pipeline: Pipeline, stages: StageRunner) -> TapPoints:
    """The tap points of a pipeline's models; points that ask the same share the answer."""
    transfers = {model: pipeline.transfer_of(model) for model in pipeline.models}
    question = [
        {model: settings.model_dump() for model, settings in pipeline.models.items()},
        {
            name: [t.sides, t.columns, t.method.teaches, t.method.before_training]
            for name, t in transfers.items()
        },
        [arm.name for arm in pipeline.training.arm_rows if arm.models],
        [pipeline.takes_knowledge(model) for model in pipeline.models],
        pipeline.evaluation.like_from,
    ]
    return stages.once(question, lambda: kept_tap_points(pipeline, question))


def jobs_of(pipeline: Pipeline, stages: StageRunner) -> list[Job]:
    """Every training that a pipeline asks for, without its inputs."""
    taps = taps_of(pipeline, stages)
    return pipeline.jobs(
        {model: {side: at.tap for side, at in sides.items()} for model, sides in taps.items()}
    )


def arms_of(pipeline: Pipeline, stages: StageRunner) -> list[tuple[str, ArmName]]:
    """Every model and arm that a pipeline trains, each once."""
    return list(dict.fromkeys((job.model, job.arm) for job in jobs_of(pipeline, stages)))


def load_data(pipeline: Pipeline, stages: StageRunner, fields: tuple[str, ...]) -> Interactions:
    """Interactions, items and users, with the given demographic fields of users."""
    question = [pipeline.dataset.model_dump(), fields]
    raw = stages.once(question, lambda: raw_files(pipeline.dataset, fields))
    data: Interactions = stages.run(interactions, pipeline.dataset, raw, fields)
    return data


def split_data(pipeline: Pipeline, data: Interactions, stages: StageRunner) -> Splits:
    """Train, valid and test, if data and configuration go together."""
    require_enough_items(pipeline, data)
    files = stages.once(pipeline.split.model_dump(), lambda: split_files(pipeline.split))
    splits: Splits = stages.run(split, pipeline.split, data.interactions, files)
    require_likes(pipeline, splits)
    return splits


def _targets_of(job: Job, knowledge: Knowledge) -> dict[Side, Handle]:
    given = knowledge.get((job.model, job.arm, job.seed), {})
    return {side: targeted.targets for side, targeted in given.items()}
