"""The nightly flow: new interactions → challenger → gate → publish."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import flow
from pydantic import BaseModel

from flows.steps.knowledge import kept_reducers
from flows.steps.preparation import load_data, prepare, taps_of
from flows.steps.stage_runner import StageRunner
from flows.steps.trainings import training_pool
from models.config import Pipeline
from models.publishing.promotion_gate import JUDGED, Outcome
from tasks.config.pipeline_file import given
from tasks.dataset.incoming_task import SETTLE_SECONDS, Folded, drops, fold_in, incoming
from tasks.dataset.outputs import Interactions
from tasks.embeddings.outputs import Described
from tasks.execution.stage import StageRecord
from tasks.nightly import night as nights
from tasks.nightly.alerts import deliver_current, tell
from tasks.nightly.gate_task import gate
from tasks.nightly.guarded import guarded
from tasks.nightly.knowledge_task import is_due, knowledge
from tasks.nightly.night import Night
from tasks.nightly.pages import announce, write_page
from tasks.nightly.promotion_log import newest, record
from tasks.publishing.manifest import current
from tasks.publishing.outputs import Judged, Promotion
from tasks.publishing.publishing_task import files_of, publishing, recommendations
from tasks.results.queries import Rows
from tasks.training.training_task import refit


class Ended(BaseModel):
    """The result of a night: its stages, its decision, and the current version."""

    experiment: str
    stages: list[StageRecord]
    decision: Outcome
    reason: str
    version: str | None
    promotion: Promotion
    knowledge: Rows
    """What knowledge adds, by the newest night that measured it; see the table of that name."""


@flow(name="nightly-retrain")
def nightly_retrain(
    config: Pipeline | Path = Path("configs/nightly.yaml"), overrides: Sequence[str] = ()
) -> Ended:
    """Train a challenger on all there is, and publish it unless it is worse than the champion.

    Arguments are as in `knowledge_transfer`; the section `nightly` has the rules.
    """
    pipeline = given(config, overrides).tonight()
    with nights.alone(pipeline.experiment):
        row = nights.opened(pipeline)
        try:
            return _night(pipeline, row, StageRunner())
        except BaseException as error:
            tell(nights.failed(row, error))
            raise


def _night(pipeline: Pipeline, row: Promotion, stages: StageRunner) -> Ended:
    """Train and judge a challenger if there is enough that is new."""
    base = load_data(pipeline, stages, pipeline.demographics())
    folder = nights.drops_folder(pipeline.nightly)
    folded = fold_drops(base, folder, stages, pipeline.nightly.settle_seconds)
    nights.require_rankings(pipeline, folded.data)
    night = nights.begin(pipeline, row, folded)
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
        prepared = prepare(pipeline, stages, weights="needed", night=night)
        pool.start(*prepared.requests)
        pool.wait_for_all()
        part = pool.trained(prepared)
        stages.add_trainings(pool.ended())
        [trained], [request] = part.trained, prepared.requests
        judged = stages.run(
            gate,
            pipeline.nightly,
            pipeline.evaluation,
            trained,
            part.splits,
            data,
            night.champion,
            night.anchor,
        )
        targeted = prepared.knowledge.get(night.training, {})
        initial = request.inputs["initial"]
        made = nights.Made(part.splits, trained, part.described, targeted, initial)
        row = night.judged(judged, made, stages.computed("profiles"))
        if judged.decision != "published":
            return _end(night, row, stages, judged, part.described)
        served, learnt = trained, part.splits.train
        if pipeline.nightly.serve_from == "all":
            learnt = data.interactions
            targets = request.inputs["targets"]
            served = stages.run(
                refit, trained, part.splits.train, learnt, data.users, data.items, targets
            )
    offered = stages.run(
        recommendations, served, learnt, data, made.embeddings(), pipeline.nightly.k
    )
    row = guarded(night, row, offered, made)
    if row.decision != "kept":
        reducers = kept_reducers(prepared.knowledge, pipeline.targets.refit)
        manifest = nights.manifest(night, row, judged, offered, made, reducers)
        files = files_of(served, trained, part.splits, data, offered)
        keep, swap = pipeline.nightly.keep_versions, row.decision == "published"
        if stages.run(publishing, manifest, files, keep, swap) is None:
            row = nights.overtaken(row)
    return _end(night, row, stages, judged, part.described)


def _end(
    night: Night,
    row: Promotion,
    stages: StageRunner,
    judged: Judged | None = None,
    described: Sequence[Described] = (),
) -> Ended:
    """Record the night, deliver what is current, and tell how it ended.

    Nothing after its row may fail a night, and after a publication not even that: the next one
    records a publication that is not recorded yet, and delivers what a sink has not got.
    """
    reason, version = row.reason, row.challenger_version
    for act in (
        partial(record, [row]),
        partial(announce, row, judged, described),
        partial(deliver_current, row.experiment, night.pipeline.nightly.sinks),
        partial(tell, row, night.pipeline.nightly.quarantine_alert, described),
        partial(_measure, night, row, stages),
    ):
        try:
            act()
        except Exception as error:
            if act.func is record and row.decision != "published":
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
        knowledge=newest(row.experiment),
    )


def _measure(night: Night, row: Promotion, stages: StageRunner) -> None:
    """Train tonight's challenger without knowledge and with shuffled texts, every n-th night."""
    if row.decision not in JUDGED or not is_due(night.pipeline, row):
        return
    pipeline = night.pipeline.with_controls()
    with training_pool(pipeline) as pool:
        tonight = replace(night, pipeline=pipeline)
        prepared = prepare(pipeline, stages, weights="needed", night=tonight)
        pool.start(*prepared.requests)
        pool.wait_for_all()
        stages.add_trainings(pool.ended())
        stages.run(knowledge, pool.trained(prepared), night.data, row)
    write_page(row.experiment)
