"""The nightly flow: new interactions → challenger → gate → publish."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from pydantic import BaseModel

from flows.steps.knowledge import describe_all, kept_reducers, sides_of, target_all, target_forms
from flows.steps.new_interactions import fold_drops
from flows.steps.stage_runner import Stages
from flows.steps.trainings import train_all
from models.config import Pipeline
from models.publishing.promotion_gate import Outcome
from tasks.config.pipeline_file import given
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions, raw_files
from tasks.dataset.split_task import split
from tasks.embeddings.outputs import Described
from tasks.execution.stage_record import StageRecord
from tasks.execution.worker_pool import crew
from tasks.nightly import night as nights
from tasks.nightly.gate_task import gate
from tasks.nightly.night import Night
from tasks.nightly.outputs import Judged
from tasks.nightly.prefect_summary import announce
from tasks.nightly.promotion_log import record
from tasks.publishing.manifest import current
from tasks.publishing.outputs import Promotion
from tasks.publishing.publishing_task import publishing, recommendations
from tasks.training.tap_points import tap_points


class Ended(BaseModel):
    """What a night hands back: its stages, its decision, and the version that counts now."""

    experiment: str
    stages: list[StageRecord]
    decision: Outcome
    reason: str
    version: str | None
    promotion: Promotion


@flow(name="nightly-retrain")
def nightly_retrain(
    config: Pipeline | Path = Path("configs/nightly.yaml"), overrides: Sequence[str] = ()
) -> Ended:
    """Train a challenger on all there is, and publish it unless it is worse than the champion.

    Args:
        config: a pipeline, or the path of its YAML file; its section `nightly` has the rules.
        overrides: `dotted.key=value` texts applied over the file.
    """
    whole = given(config, overrides)
    pipeline = whole.tonight()
    with nights.alone(pipeline.experiment):
        stages = Stages()
        fields = pipeline.demographics()
        raw = raw_files(pipeline.dataset, fields)
        base = stages.run(interactions, pipeline.dataset, raw, fields)
        folder, settle = nights.drops_folder(pipeline.nightly), pipeline.nightly.settle_seconds
        folded = fold_drops(base, folder, stages, settle)
        nights.require_rankings(pipeline, folded.data)
        night = nights.begin(pipeline, current(pipeline.experiment), folded)
        skipped = night.skipped()
        if skipped:
            return _end(night, night.ended(skipped), stages)
        with crew(pipeline):
            return _challenge(night, stages)


def _challenge(night: Night, stages: Stages) -> Ended:
    """Train tonight's challenger, judge it, and publish it if it may be."""
    pipeline, data = night.pipeline, night.data
    entered = tap_points(pipeline)
    nights.require_tap_points(pipeline, entered)
    sides = sides_of(pipeline, entered)
    prompts = {side: prompt_of(pipeline, side) for side in sides}
    forms = {side: target_forms(pipeline, entered, side) for side in sides}

    parts = stages.run(split, pipeline.split, data.interactions, {})
    earlier, reducers = night.earlier_profiles(), night.earlier_reducers()
    described = describe_all(pipeline, prompts, data, parts, stages, earlier)
    targeted = target_all(pipeline, forms, described, parts, data, stages, reducers)
    initial = night.starting_point()
    [trained] = train_all(pipeline, entered, data, parts, targeted, stages, initial)
    judged = stages.run(
        gate, pipeline.nightly, pipeline.evaluation, trained, parts, data, night.champion
    )
    made = nights.Made(parts, trained, tuple(described), targeted.get(night.training, {}), initial)
    row = night.judged(judged, made, stages.computed("profiles"))
    if judged.decision != "published":
        return _end(night, row, stages, judged, described)

    offered = stages.run(recommendations, trained, parts, data, pipeline.nightly.k)
    reducers = kept_reducers(targeted, pipeline.targets.refit)
    manifest = nights.manifest(night, row, judged, offered, made, reducers)
    published = stages.run(
        publishing, manifest, trained, parts, data, offered, pipeline.nightly.keep_versions
    )
    if published is None:
        row = nights.overtaken(row)
    return _end(night, row, stages, judged, described)


def _end(
    night: Night,
    row: Promotion,
    stages: Stages,
    judged: Judged | None = None,
    described: Sequence[Described] = (),
) -> Ended:
    """Record the night and tell of it."""
    record([row])
    announce(row, judged, described)
    counts = current(night.pipeline.experiment)
    return Ended(
        experiment=row.experiment,
        stages=stages.records,
        decision=row.decision,
        reason=row.reason,
        version=counts.version if counts else None,
        promotion=row,
    )
