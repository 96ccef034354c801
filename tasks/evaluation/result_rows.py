"""An evaluation as rows of the results database (`sql/schema.sql`)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.config import Job, Pipeline, Tap
from models.evaluation.slices import Slice
from models.evaluation.user_scores import UserValues
from models.recommenders.registry import precision_of
from models.statistics.comparability import Terms
from models.statistics.contrasts import Contrast, Run
from tasks.embeddings.outputs import Described, knowledge, origin
from tasks.evaluation.inputs import Part, PointResult, Trial
from tasks.evaluation.outputs import Difference, Evaluated
from tasks.storage.artifacts import Handoff
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
PartsByArm = dict[tuple[str | None, str, str], Part]
"""By point, model and arm; under no point the first one with that arm."""

_SLICES = ("run_id", "kind", "slice", "low", "high", "metric", "k", "value", "users")


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
    """Coverage and novelty, by split; empty where likes are predicted."""
    slices: dict[Slice, UserValues]
    """On test."""

    def run(self, values: UserValues | None = None) -> Run:
        """As it is compared: with its values on test, or with those in a slice."""
        job = self.trained.job
        return Run(
            job.model, job.arm, job.seed, self.terms, values or self.values["test"], self.run_id
        )


def of_job(pipeline: Pipeline, job: Job, described: Sequence[Described]) -> dict[str, str | None]:
    """What a job knows and how it was reduced; nothing for a baseline.

    Two controls hold nothing of any profile; the others are made of the profiles' targets.
    """
    known = knowledge([of for of in described if of.side in job.sides])
    if not job.sides or job.arm in ("genre-histogram", "history-svd"):
        return dict.fromkeys((*known, "reduction"))
    whole = not any(job.taps.values())
    return {**known, "reduction": "none" if whole else pipeline.targets_of(job.model).reduction}


def run_rows(
    evaluated: Evaluated, runs: list[Scored], points: Mapping[str, str | None]
) -> pa.Table:
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
                "point": points[run.run_id],
                **of_job(pipeline, job, run.part.described),
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
        for split, of_split in run.values.items()
        for (metric, k), values in of_split.values.items()
    ]
    of_system = [
        (run.run_id, split, metric, k, value)
        for run in runs
        for split, of_split in run.beyond.items()
        for (metric, k), value in of_split.items()
    ]
    return _table(("run_id", "split", "metric", "k", "value"), [*means, *of_system])


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
    return _table(
        _SLICES,
        [
            (run.run_id, *_slice(part).values(), metric, k, float(of.mean()), len(values.users))
            for run in runs
            for part, values in run.slices.items()
            for (metric, k), of in values.values.items()
        ],
    )


def differences(contrasts: Iterable[Contrast]) -> tuple[Difference, ...]:
    """Contrasts as they are handed on."""
    facts = [asdict(contrast) for contrast in contrasts]
    return tuple(Difference(**fact.pop("comparison"), **fact) for fact in facts)


def contrast_rows(
    evaluated: Evaluated, contrasts: Sequence[Contrast], parts: PartsByArm
) -> pa.Table:
    """Table `contrasts`: no row where there is nothing to hold an arm against."""
    rows = [
        (*_origin(evaluated, parts, difference), *_values(difference))
        for difference in differences(contrasts)
    ]
    return _table((*_ORIGIN, *Difference.model_fields), rows)


def slice_contrast_rows(
    evaluated: Evaluated, contrasts: Mapping[Slice, Sequence[Contrast]], parts: PartsByArm
) -> pa.Table:
    """Table `slice_contrasts`."""
    rows = [
        (*_origin(evaluated, parts, difference), *_slice(part).values(), *_values(difference))
        for part, of_slice in contrasts.items()
        for difference in differences(of_slice)
    ]
    return _table((*_ORIGIN, "kind", "slice", "low", "high", *Difference.model_fields), rows)


def point_rows(
    evaluated: Evaluated,
    points: Sequence[PointResult],
    scored: Mapping[str | None, Sequence[Scored]],
) -> pa.Table:
    """Table `points`."""
    known = (evaluated.experiment, evaluated.evaluation_id)
    rows = [
        (*known, *_values(point), [run.run_id for run in scored.get(point.point, ())])
        for point in points
    ]
    return _table((*_ORIGIN[:2], *PointResult.model_fields, "run_ids"), rows)


def trial_rows(evaluated: Evaluated, trials: Sequence[Trial]) -> pa.Table:
    """Table `trials`."""
    known = (evaluated.experiment, evaluated.evaluation_id)
    rows = [(*known, *_values(trial)) for trial in trials]
    return _table((*_ORIGIN[:2], *Trial.model_fields), rows)


_ORIGIN = ("experiment", "evaluation_id", "dataset", "profile_source", "profile_provenance")


def _origin(
    evaluated: Evaluated, parts: PartsByArm, difference: Difference
) -> tuple[str | None, ...]:
    part = parts[difference.point, difference.model, difference.arm]
    known = evaluated.experiment, evaluated.evaluation_id, part.pipeline.dataset.name
    return (*known, *origin(part.described).values())


def _values(row: Handoff) -> list[Any]:
    return list(row.model_dump().values())


def _slice(part: Slice) -> dict[str, Any]:
    return {"kind": part.kind, "slice": part.name, "low": part.low, "high": part.high}


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Columns by name, also where there is no row."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table(dict(zip(names, map(list, columns), strict=True)))
