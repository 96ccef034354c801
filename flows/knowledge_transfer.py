"""The main flow: one configuration in, one comparison out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import BaseModel

from flows.steps.knowledge import describe_all, map_of, sides_of, target_all, target_forms
from flows.steps.stage_runner import Stages
from flows.steps.trainings import train_all
from models.config import Pipeline
from tasks.config.pipeline_file import given
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions, raw_files
from tasks.dataset.requirements import require_enough_items, require_likes
from tasks.dataset.split_task import split, split_files
from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.inputs import Part
from tasks.evaluation.outputs import Reference
from tasks.execution.stage_record import StageRecord
from tasks.execution.worker_pool import crew
from tasks.report.report_task import report
from tasks.training.tap_points import tap_points


class Summary(BaseModel):
    """What a run hands back: its stages, the comparison, and where the report is."""

    experiment: str
    stages: list[StageRecord]
    comparison: list[dict[str, Any]]
    """One row per arm, metric and cut-off; see `models.statistics.contrasts.Contrast.row`."""
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
    pipeline = given(config, overrides)
    with crew(pipeline):
        return _compared(pipeline)


def _compared(pipeline: Pipeline) -> Summary:
    entered = tap_points(pipeline)
    sides = sides_of(pipeline, entered)
    prompts = {side: prompt_of(pipeline, side) for side in sides}
    stages = Stages()

    fields = pipeline.demographics(sides)
    raw = raw_files(pipeline.dataset, fields)
    data = stages.run(interactions, pipeline.dataset, raw, fields)
    require_enough_items(pipeline, data)
    parts = stages.run(split, pipeline.split, data.interactions, split_files(pipeline.split))
    require_likes(pipeline, parts)
    forms = {side: target_forms(pipeline, entered, side) for side in sides}
    described = describe_all(pipeline, prompts, data, parts, stages)
    targeted = target_all(pipeline, forms, described, parts, data, stages)
    trained = train_all(pipeline, entered, data, parts, targeted, stages)
    part = Part(
        pipeline=pipeline,
        splits=parts,
        described=tuple(described),
        items=data.items,
        trained=tuple(trained),
    )
    evaluated = stages.run(evaluation, pipeline.experiment, [part])
    maps = [map_of(of, parts, data.items) for of in described]
    reported = stages.run(
        report, pipeline, evaluated, trained, described, maps, list(stages.records)
    )
    return Summary(
        experiment=pipeline.experiment,
        stages=stages.records,
        comparison=[contrast.row() for contrast in evaluated.contrasts],
        references=list(evaluated.references),
        report=reported.page.file,
    )
