"""The nightly flow: new interactions → challenger → gate → publish."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect import flow
from pydantic import BaseModel

from flows.steps.knowledge import kept_reducers
from flows.steps.preparation import load_data, prepare, taps_of
from flows.steps.stage_runner import StageRunner
from flows.steps.trainings import training_pool
from models.config import Pipeline
from models.publishing.promotion_gate import Outcome
from tasks.config.pipeline_file import given
from tasks.dataset.incoming_task import SETTLE_SECONDS, Folded, drops, fold_in, incoming
from tasks.dataset.outputs import Interactions
from tasks.embeddings.outputs import Described
from tasks.execution.stage import StageRecord
from tasks.nightly import night as nights
from tasks.nightly.gate_task import gate
from tasks.nightly.night import Night
from tasks.nightly.prefect_summary import announce
from tasks.nightly.promotion_log import record
from tasks.publishing.manifest import current
from tasks.publishing.outputs import Judged, Promotion
from tasks.publishing.publishing_task import publishing, recommendations


class Ended(BaseModel):
    """The result of a night: its stages, its decision, and the current version."""

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
    pipeline = given(config, overrides).tonight()
    with nights.alone(pipeline.experiment):
        stages = StageRunner()
        base = load_data(pipeline, stages, pipeline.demographics())
        folder = nights.drops_folder(pipeline.nightly)
        folded = fold_drops(base, folder, stages, pipeline.nightly.settle_seconds)
        nights.require_rankings(pipeline, folded.data)
        night = nights.begin(pipeline, current(pipeline.experiment), folded)
        skipped = night.skipped()
        if skipped:
            return _end(night, night.ended(skipped), stages)
        return _challenge(night, stages)


def fold_drops(
    base: Interactions, folder: Path, stages: StageRunner, settle_seconds: float = SETTLE_SECONDS
) -> Folded:
    """Fold every drop of `folder`, which need not exist, into `base`; only new drops are read."""
    found = drops(folder, settle_seconds)
    read = [stages.run(incoming, drop) for drop in found.files]
    folded: Folded = stages.run(fold_in, base, read)
    refused = folded.quarantined + len(found.refused)
    return folded.model_copy(update={"waiting": found.waiting, "quarantined": refused})


def _challenge(night: Night, stages: StageRunner) -> Ended:
    """Train tonight's challenger, judge it, and publish it if it may be."""
    pipeline, data = night.pipeline, night.data
    nights.require_tap_points(pipeline, taps_of(pipeline, stages))
    with training_pool(pipeline) as pool:
        prepared = prepare(pipeline, stages, night=night)
        pool.start(*prepared.requests)
        pool.wait_for_all()
        part = pool.trained(prepared)
    stages.add_trainings(pool.ended())
    [trained], [request] = part.trained, prepared.requests
    judged = stages.run(
        gate, pipeline.nightly, pipeline.evaluation, trained, part.splits, data, night.champion
    )
    targeted = prepared.knowledge.get(night.training, {})
    initial = request.inputs["initial"]
    made = nights.Made(part.splits, trained, part.described, targeted, initial)
    row = night.judged(judged, made, stages.computed("profiles"))
    if judged.decision != "published":
        return _end(night, row, stages, judged, part.described)

    offered = stages.run(recommendations, trained, part.splits, data, pipeline.nightly.k)
    reducers = kept_reducers(prepared.knowledge, pipeline.targets.refit)
    manifest = nights.manifest(night, row, judged, offered, made, reducers)
    keep = pipeline.nightly.keep_versions
    published = stages.run(publishing, manifest, trained, part.splits, data, offered, keep)
    if published is None:
        row = nights.overtaken(row)
    return _end(night, row, stages, judged, part.described)


def _end(
    night: Night,
    row: Promotion,
    stages: StageRunner,
    judged: Judged | None = None,
    described: Sequence[Described] = (),
) -> Ended:
    """Record the night and announce how it ended; after a publication, nothing may fail it.

    The next night records a publication that is not recorded yet.
    """
    reason, version = row.reason, row.challenger_version
    for act in (partial(record, [row]), partial(announce, row, judged, described)):
        try:
            act()
        except Exception as error:
            if row.decision != "published":
                raise
            reason += f"; afterwards: {error}"
    if row.decision != "published":
        champion = current(night.pipeline.experiment)
        version = champion.version if champion else None
    return Ended(
        experiment=row.experiment,
        stages=stages.records,
        decision=row.decision,
        reason=reason,
        version=version,
        promotion=row,
    )
