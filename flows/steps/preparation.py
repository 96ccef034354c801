"""What a point needs before its trainings; what points have in common is done once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows.steps.knowledge import describe_all, sides_of, target_all, target_forms
from flows.steps.stage_runner import Stages
from flows.steps.trainings import jobs_of, trainings_of
from models.config import Job, Pipeline
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions, raw_files
from tasks.dataset.outputs import Interactions, Splits
from tasks.dataset.requirements import require_enough_items, require_likes
from tasks.dataset.split_task import split, split_files
from tasks.embeddings.outputs import Described
from tasks.storage.artifacts import Handle
from tasks.training.outputs import Trained
from tasks.training.tap_points import TapPoints, tap_points
from tasks.training.training_task import training


@dataclass(frozen=True)
class Request:
    """One training that a point asks for, and its cache key."""

    job: Job
    inputs: dict[str, Any]

    @property
    def key(self) -> str:
        """Equal for equal trainings."""
        return training.key(self.job, **self.inputs)

    def cached(self) -> Trained | None:
        """What came of it in an earlier run, if it is there."""
        found: Trained | None = training.cached(self.job, **self.inputs)
        return found


@dataclass(frozen=True)
class Prepared:
    """All that a pipeline's trainings need."""

    pipeline: Pipeline
    data: Interactions
    parts: Splits
    described: tuple[Described, ...]
    requests: tuple[Request, ...]


class Bench:
    """Prepares pipelines; remembers what it has looked up, since points differ in little."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self._entered: dict[str, TapPoints] = {}
        self._files: dict[str, Any] = {}

    def entered(self, pipeline: Pipeline) -> TapPoints:
        """As `tasks.training.tap_points.tap_points`, each different question once."""
        transfers = {model: pipeline.transfer_of(model) for model in pipeline.models}
        question = [
            {model: of.model_dump(mode="json") for model, of in pipeline.models.items()},
            {model: [of.sides, of.columns] for model, of in transfers.items()},
            [arm.name for arm in pipeline.training.arm_rows if arm.models],
            pipeline.evaluation.like_from,
        ]
        key = json.dumps(question, sort_keys=True, default=str)
        if key not in self._entered:
            self._entered[key] = tap_points(pipeline)
        return self._entered[key]

    def jobs(self, pipeline: Pipeline) -> list[Job]:
        """The trainings of a pipeline, without what they are given."""
        return jobs_of(pipeline, self.entered(pipeline))

    def ground(self, pipeline: Pipeline, fields: tuple[str, ...]) -> tuple[Interactions, Splits]:
        """Interactions and split."""
        raw: dict[str, Handle] = self._taken(
            ["raw", pipeline.dataset.model_dump(), fields],
            lambda: raw_files(pipeline.dataset, fields),
        )
        data = self.stages.run(interactions, pipeline.dataset, raw, fields)
        require_enough_items(pipeline, data)
        files: dict[str, Handle] = self._taken(
            ["split", pipeline.split.model_dump()], lambda: split_files(pipeline.split)
        )
        parts = self.stages.run(split, pipeline.split, data.interactions, files)
        require_likes(pipeline, parts)
        return data, parts

    def prepare(self, pipeline: Pipeline) -> Prepared:
        """Run, or find, every stage before the trainings.

        Raises:
            BadInput: as the stages do.
            NotCached: when peeking, for a stage that has not run yet.
        """
        entered = self.entered(pipeline)
        sides = sides_of(pipeline, entered)
        prompts = {side: prompt_of(pipeline, side) for side in sides}
        data, parts = self.ground(pipeline, pipeline.demographics(sides))
        forms = {side: target_forms(pipeline, entered, side) for side in sides}
        described = describe_all(pipeline, prompts, data, parts, self.stages)
        targeted = target_all(pipeline, forms, described, parts, data, self.stages)
        requests = [
            Request(job, inputs)
            for job, inputs in trainings_of(pipeline, entered, data, parts, targeted)
        ]
        return Prepared(pipeline, data, parts, tuple(described), tuple(requests))

    def _taken(self, question: list[Any], take: Callable[[], Any]) -> Any:
        key = json.dumps(question, sort_keys=True, default=str)
        if key not in self._files:
            self._files[key] = take()
        return self._files[key]
