"""An evaluation as rows of the results database (`sql/schema.sql`)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.config import ARMS, Job, Pipeline, Tap
from models.evaluation.slices import Slice
from models.evaluation.user_scores import UserValues
from models.recommenders.registry import precision_of
from models.statistics.comparability import Terms
from models.statistics.contrasts import Contrast, Run
from tasks.embeddings.outputs import Described, knowledge, origin
from tasks.evaluation.outputs import Difference, Evaluated
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
_SLICES = ("run_id", "kind", "slice", "low", "high", "metric", "k", "value", "users")


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
    """What a job knows of profiles and how it was reduced; nothing where it knows none."""
    known = knowledge([of for of in described if of.side in job.sides])
    if not job.sides or not ARMS[job.arm].knows_profiles:
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
    pipeline: Pipeline,
    evaluated: Evaluated,
    described: list[Described],
    contrasts: Sequence[Contrast],
) -> pa.Table:
    """Table `contrasts`: no row where there is nothing to hold an arm against."""
    known = _origin(pipeline, evaluated, described)
    rows = [(*known.values(), *_values(of)) for of in differences(contrasts)]
    return _table((*known, *Difference.model_fields), rows)


def slice_contrast_rows(
    pipeline: Pipeline,
    evaluated: Evaluated,
    described: list[Described],
    contrasts: Mapping[Slice, Sequence[Contrast]],
) -> pa.Table:
    """Table `slice_contrasts`."""
    known = _origin(pipeline, evaluated, described)
    rows = [
        (*known.values(), *_slice(part).values(), *_values(of))
        for part, of_slice in contrasts.items()
        for of in differences(of_slice)
    ]
    return _table((*known, "kind", "slice", "low", "high", *Difference.model_fields), rows)


def _origin(
    pipeline: Pipeline, evaluated: Evaluated, described: list[Described]
) -> dict[str, str | None]:
    return {
        "experiment": evaluated.experiment,
        "evaluation_id": evaluated.evaluation_id,
        "dataset": pipeline.dataset.name,
        **origin(described),
    }


def _values(difference: Difference) -> list[Any]:
    return list(difference.model_dump().values())


def _slice(part: Slice) -> dict[str, Any]:
    return {"kind": part.kind, "slice": part.name, "low": part.low, "high": part.high}


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Columns by name, also where there is no row."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table(dict(zip(names, map(list, columns), strict=True)))
