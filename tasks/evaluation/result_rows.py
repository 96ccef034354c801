"""An evaluation as rows of the results database (`sql/schema.sql`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.config import Job, Pipeline, Tap
from models.evaluation.slices import Slice
from models.evaluation.user_scores import UserValues
from models.recommenders.registry import precision_of
from models.statistics.comparability import Run, Terms
from models.statistics.contrasts import Contrast
from tasks.embeddings.outputs import Described, knowledge, origin
from tasks.evaluation.outputs import Evaluated
from tasks.results.contrast_columns import CONTRASTS, SLICE_CONTRASTS
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
_METRICS = pa.schema(
    {
        "run_id": pa.string(),
        "split": pa.string(),
        "metric": pa.string(),
        "k": pa.int32(),
        "value": pa.float64(),
    }
)
_SLICES = pa.schema(
    {
        "run_id": pa.string(),
        "kind": pa.string(),
        "slice": pa.string(),
        "low": pa.int32(),
        "high": pa.int32(),
        "metric": pa.string(),
        "k": pa.int32(),
        "value": pa.float64(),
        "users": pa.int32(),
    }
)


@dataclass(frozen=True)
class Scored:
    """One trained model and all that its rankings are worth."""

    run_id: str
    trained: Trained
    terms: Terms
    values: dict[str, UserValues]
    """By split."""
    beyond: dict[str, dict[tuple[str, int], float]]
    """Coverage and novelty, by split; empty where likes are predicted."""
    slices: dict[Slice, UserValues]
    """On test."""

    def run(self, values: UserValues | None = None) -> Run:
        """As it is compared: with its values on test, or with those in a slice."""
        job = self.trained.job
        return Run(
            job.model, job.arm, job.seed, self.terms, values or self.values["test"], self.run_id
        )


def of_job(pipeline: Pipeline, job: Job, described: list[Described]) -> dict[str, str | None]:
    """What a job knows and how it was reduced; nothing for a baseline.

    Two controls hold nothing of any profile; the others are made of the profiles' targets.
    """
    known = knowledge([of for of in described if of.side in job.sides])
    if not job.sides or job.arm in ("genre-histogram", "history-svd"):
        return dict.fromkeys((*known, "reduction"))
    whole = not any(job.taps.values())
    return {**known, "reduction": "none" if whole else pipeline.targets_of(job.model).reduction}


def run_rows(
    pipeline: Pipeline, evaluated: Evaluated, runs: list[Scored], described: list[Described]
) -> pa.Table:
    """Table `runs`."""
    rows = []
    for run in runs:
        trained, job = run.trained, run.trained.job
        rows.append(
            {
                "run_id": run.run_id,
                "experiment": pipeline.experiment,
                "model": job.model,
                "arm": job.arm,
                "alignment": job.transfer.alignment if job.transfer else None,
                "layer": ", ".join(_layer(tap) for tap in job.taps.values() if tap) or None,
                "alpha": job.transfer.alpha if job.transfer else None,
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
                **of_job(pipeline, job, described),
            }
        )
    return pa.Table.from_pylist(rows)


def _layer(tap: Tap) -> str:
    """The tap's name, with its slice if it has one: `encoder[:half]`."""
    if tap.start is None and tap.stop is None:
        return tap.name
    return f"{tap.name}[{'' if tap.start is None else tap.start}:{tap.stop or ''}]"


def metric_rows(runs: list[Scored]) -> pa.Table:
    """Table `metrics`."""
    means = [
        (run.run_id, split, metric, k, float(values.mean()))
        for run in runs
        for split, user_values in run.values.items()
        for (metric, k), values in user_values.values.items()
    ]
    system = [
        (run.run_id, split, metric, k, value)
        for run in runs
        for split, values in run.beyond.items()
        for (metric, k), value in values.items()
    ]
    rows = [dict(zip(_METRICS.names, row, strict=True)) for row in (*means, *system)]
    return pa.Table.from_pylist(rows, schema=_METRICS)


def user_metric_rows(runs: list[Scored]) -> pa.RecordBatchReader:
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


def epoch_rows(runs: list[Scored]) -> pa.Table:
    """Table `epochs`."""
    return pa.Table.from_pylist(
        [
            {"run_id": run.run_id, **epoch.model_dump()}
            for run in runs
            for epoch in run.trained.epochs
        ]
    )


def slice_rows(runs: list[Scored]) -> pa.Table:
    """Table `slices`."""
    rows = [
        {"run_id": run.run_id, "metric": metric, "k": k, "value": float(values.mean())}
        | _slice(part)
        | {"users": len(values)}
        for run in runs
        for part, user_values in run.slices.items()
        for (metric, k), values in user_values.values.items()
    ]
    return pa.Table.from_pylist(rows, schema=_SLICES)


def contrast_rows(
    pipeline: Pipeline,
    evaluated: Evaluated,
    described: list[Described],
    contrasts: Sequence[Contrast],
) -> pa.Table:
    """Table `contrasts`: no row where there is nothing to compare an arm with."""
    known = _origin(pipeline, evaluated, described)
    return pa.Table.from_pylist([known | found.row() for found in contrasts], schema=CONTRASTS)


def slice_contrast_rows(
    pipeline: Pipeline,
    evaluated: Evaluated,
    described: list[Described],
    contrasts: Mapping[Slice, Sequence[Contrast]],
) -> pa.Table:
    """Table `slice_contrasts`."""
    known = _origin(pipeline, evaluated, described)
    rows = [
        known | _slice(part) | contrast.row()
        for part, found in contrasts.items()
        for contrast in found
    ]
    return pa.Table.from_pylist(rows, schema=SLICE_CONTRASTS)


def _origin(
    pipeline: Pipeline, evaluated: Evaluated, described: list[Described]
) -> dict[str, str | None]:
    return {
        "experiment": evaluated.experiment,
        "evaluation_id": evaluated.evaluation_id,
        "dataset": pipeline.dataset.name,
        **origin(described),
    }


def _slice(part: Slice) -> dict[str, Any]:
    return {"kind": part.kind, "slice": part.name, "low": part.low, "high": part.high}
