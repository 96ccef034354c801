"""An evaluation as rows of the results database (`sql/schema.sql`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from models.config import ARMS, Job, Pipeline, Tap
from models.evaluation.slices import Slice
from models.evaluation.user_scores import UserValues
from models.recommenders.registry import precision_of
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import Contrast
from tasks.embeddings.outputs import Described, knowledge, origin
from tasks.evaluation.inputs import Part, PointResult, Trial
from tasks.evaluation.outputs import Evaluated
from tasks.results.queries import Rows
from tasks.training.outputs import Trained

_USER_METRICS = pa.schema(
    {
        "run_id": pa.string(),
        "user_id": pa.string(),
        "metric": pa.string(),
        "k": pa.int32(),
        "value": pa.float64(),
    }
)

_ELSEWHERE = "{} was trained elsewhere: its search, budget and early stopping are not known."

PartsByArm = dict[tuple[str | None, str, str], Part]
"""By point, model and arm; under no point the first one with that arm."""


@dataclass(frozen=True)
class Scored:
    """One trained model and all that its rankings are worth."""

    run_id: str
    part: Part
    trained: Trained
    terms: Terms
    values: dict[str, UserValues]
    """By split."""
    beyond: dict[str, dict[tuple[str, int], float]]
    """See `models.evaluation.beyond_accuracy`, by split; empty where likes are predicted."""
    slices: dict[Slice, UserValues]
    """On test."""

    def run(self, values: UserValues | None = None) -> Run:
        """As it is compared: with its values on test, or with those in a slice."""
        job = self.trained.job
        return Run(
            job.model,
            job.arm,
            job.seed,
            self.terms,
            values or self.values["test"],
            self.run_id,
            alpha=job.transfer.strength if job.transfer else None,
        )


def knowledge_of(
    pipeline: Pipeline, job: Job, described: Sequence[Described]
) -> dict[str, str | None]:
    """What a job knows of profiles and how it was reduced; nothing where it knows none."""
    known = knowledge([side for side in described if side.side in job.sides])
    if not job.sides or not ARMS[job.arm].knows_profiles:
        return dict.fromkeys((*known, "reduction"))
    whole = not any(job.taps.values())
    return {**known, "reduction": "none" if whole else pipeline.targets_of(job.model).reduction}


def run_rows(
    evaluated: Evaluated, runs: Sequence[Scored], points: Mapping[str, str | None]
) -> Rows:
    """Table `runs`; `points` has each run's point, None where it has several or none."""
    rows = []
    for run in runs:
        trained, job, pipeline = run.trained, run.trained.job, run.part.pipeline
        rows.append(
            {
                "run_id": run.run_id,
                "experiment": pipeline.experiment,
                "model": job.model,
                "arm": job.arm,
                "alignment": job.transfer.alignment if job.transfer else None,
                "layer": ", ".join(_layer(tap) for tap in job.taps.values() if tap) or None,
                "alpha": job.transfer.strength if job.transfer else None,
                "seed": job.seed,
                "config_hash": evaluated.config_hash,
                "epochs_run": len(trained.epochs),
                "best_epoch": trained.best_epoch,
                "train_seconds": trained.train_seconds,
                "flow_run_id": trained.flow_run_id,
                "git_sha": evaluated.git_sha,
                "started_at": trained.started_at,
                "finished_at": trained.finished_at,
                "config": json.dumps({**pipeline.identity(), "job": job.identity()}),
                "is_current": True,
                "device": job.budget.kind,
                "precision": precision_of(job.model, job.budget.precision),
                **asdict(run.terms),
                "point": points[run.run_id],
                "artifacts": json.dumps(_artifacts(run)),
                **knowledge_of(pipeline, job, run.part.described),
            }
        )
    return rows


def _artifacts(run: Scored) -> dict[str, str]:
    """Paths of what a run's values follow from, by name."""
    ranked = run.trained.predictions or run.trained.rankings
    known = {**dict(run.part.splits), "items": run.part.items, "rankings": ranked}
    for side in run.part.described:
        known[f"embeddings of {side.side}"] = side.embedded.embeddings
        if side.written:
            known[f"profiles of {side.side}"] = side.written.profiles
    return {name: handle.path for name, handle in known.items()}


def _layer(tap: Tap) -> str:
    """The tap's name, with its slice if it has one: `encoder[:half]`."""
    if tap.start is None and tap.stop is None:
        return tap.name
    return f"{tap.name}[{'' if tap.start is None else tap.start}:{tap.stop or ''}]"


def metric_rows(runs: Sequence[Scored]) -> Rows:
    """Table `metrics`."""
    return [
        {"run_id": run.run_id, "split": split, "metric": metric, "k": k, "value": value}
        for run in runs
        for split, users in run.values.items()
        for (metric, k), value in chain(
            ((column, float(values.mean())) for column, values in users.values.items()),
            run.beyond.get(split, {}).items(),
        )
    ]


def user_metric_rows(runs: Sequence[Scored]) -> pa.RecordBatchReader:
    """Table `user_metrics`: one batch per run, metric and cut-off, made while DuckDB reads them."""
    return pa.RecordBatchReader.from_batches(
        _USER_METRICS,
        (
            pa.record_batch(
                [
                    pa.repeat(run.run_id, len(values)),
                    pa.array(run.values["test"].users, pa.string()),
                    pa.repeat(metric, len(values)),
                    pa.repeat(pa.scalar(k, pa.int32()), len(values)),
                    pa.array(values),
                ],
                schema=_USER_METRICS,
            )
            for run in runs
            for (metric, k), values in run.values["test"].values.items()
        ),
    )


def epoch_rows(runs: Sequence[Scored]) -> Rows:
    """Table `epochs`."""
    return [
        {"run_id": run.run_id, **epoch.model_dump()} for run in runs for epoch in run.trained.epochs
    ]


def slice_rows(runs: Sequence[Scored]) -> Rows:
    """Table `slices`."""
    return [
        {"run_id": run.run_id, "metric": metric, "k": k, "value": float(values.mean())}
        | _slice(part)
        | {"users": len(values)}
        for run in runs
        for part, users in run.slices.items()
        for (metric, k), values in users.values.items()
    ]


def contrast_rows(evaluated: Evaluated, contrasts: Sequence[Contrast], parts: PartsByArm) -> Rows:
    """Table `contrasts`: no row where there is nothing to compare an arm with."""
    pipelines = [part.pipeline for part in parts.values()]
    brought = {name for each in pipelines for name in each.models.keys() - set(each.trained_here)}
    rows = []
    for contrast in contrasts:
        row = _origin(evaluated, parts, contrast) | contrast.row()
        notes = [_ELSEWHERE.format(n) for n in sorted({contrast.model, contrast.against} & brought)]
        warnings = "\n".join(filter(None, [row["warnings"], *notes])) or None
        family = evaluated.family if contrast.claim else None
        rows.append(row | {"warnings": warnings, "family": family})
    return rows


def slice_contrast_rows(
    evaluated: Evaluated, contrasts: Mapping[Slice, Sequence[Contrast]], parts: PartsByArm
) -> Rows:
    """Table `slice_contrasts`."""
    return [
        _origin(evaluated, parts, contrast) | _slice(part) | contrast.row()
        for part, found in contrasts.items()
        for contrast in found
    ]


def point_rows(
    evaluated: Evaluated,
    points: Sequence[PointResult],
    scored: Mapping[str | None, Sequence[Scored]],
) -> Rows:
    """Table `points`."""
    return [
        _known(evaluated)
        | point.model_dump()
        | {"run_ids": [run.run_id for run in scored.get(point.point, ())]}
        for point in points
    ]


def trial_rows(evaluated: Evaluated, trials: Sequence[Trial]) -> Rows:
    """Table `trials`."""
    return [_known(evaluated) | trial.model_dump() | {"is_current": True} for trial in trials]


def _known(evaluated: Evaluated) -> dict[str, Any]:
    return {"experiment": evaluated.experiment, "evaluation_id": evaluated.evaluation_id}


def _origin(evaluated: Evaluated, parts: PartsByArm, contrast: Contrast) -> dict[str, Any]:
    part = parts[contrast.point, contrast.model, contrast.arm]
    dataset = {"dataset": part.pipeline.dataset.name}
    return _known(evaluated) | dataset | origin(part.described)


def _slice(part: Slice) -> dict[str, Any]:
    return {"kind": part.kind, "slice": part.name, "low": part.low, "high": part.high}
