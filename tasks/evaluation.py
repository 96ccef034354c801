"""Stage *evaluation*: metrics of every run and their comparison, the only writer of DuckDB."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyarrow as pa
from prefect.logging import get_run_logger

from models.config import Evaluation, Job, Pipeline, Tap, parse_metric
from models.errors import BadInput
from models.evaluation import BASELINE, UserValues, contrasts, score, score_clicks
from models.schemas import ITEM, LLM_CALLS, USER
from tasks.caching import content, stage
from tasks.handoffs import (
    Described,
    Difference,
    Evaluated,
    Reference,
    Splits,
    Trained,
    knowledge,
    origin,
)
from tasks.storage import PROJECT_ROOT, database, database_path, read_parquet

SPLITS = ("valid", "test")

_SQL = Path(__file__).parent / "sql"
_USER_METRICS = pa.schema(
    {
        "run_id": pa.string(),
        "user_id": pa.string(),
        "metric": pa.string(),
        "k": pa.int32(),
        "value": pa.float64(),
    }
)


@dataclass(frozen=True)
class _Run:
    """One trained model and its values per split."""

    run_id: str
    trained: Trained
    scores: dict[str, UserValues]


@stage("evaluation", version=4)
def evaluation(
    pipeline: Pipeline,
    splits: Splits,
    trained: list[Trained],
    described: list[Described],
) -> Evaluated:
    """Score every run on valid and test, compare the arms on test, write all of it to DuckDB.

    Rows of a run are replaced as long as what decides it stays the same (see `_run_id`); the
    experiment's comparison is replaced in any case.

    Raises:
        BadInput: if no user can be scored, or the database stays busy.
    """
    runs = _scored(pipeline, splits, trained, described)
    run_ids = tuple(sorted(run.run_id for run in runs))
    evaluated = Evaluated(
        experiment=pipeline.experiment,
        evaluation_id=_digest({"config": pipeline.digest(), "runs": run_ids}),
        config_hash=pipeline.digest(),
        git_sha=_git_sha(),
        run_ids=run_ids,
        differences=_differences(pipeline, runs),
        references=_references(pipeline, runs),
    )
    _store(
        {
            "new_runs": _run_rows(pipeline, evaluated, runs, described),
            "new_metrics": _metric_rows(runs),
            "new_user_metrics": _user_metric_rows(runs),
            "new_epochs": _epoch_rows(runs),
            "new_contrasts": _contrast_rows(pipeline, evaluated, described),
            "new_llm_calls": _calls(described),
        }
    )
    get_run_logger().info(
        "%d runs and %d comparisons written to %s",
        len(runs),
        len(evaluated.differences),
        database_path(),
    )
    return evaluated


def comparison_rows(experiment: str | None = None) -> list[dict[str, Any]]:
    """The view `comparison` of one experiment or of all, the primary metric first.

    Raises:
        BadInput: if there is nothing to show; says which experiments there are.
    """
    with database(read_only=True) as connection:
        view = connection.sql(
            (_SQL / "comparison.sql").read_text(), params={"experiment": experiment}
        )
        rows = [dict(zip(view.columns, row, strict=True)) for row in view.fetchall()]
        known = connection.execute("SELECT DISTINCT experiment FROM runs ORDER BY ALL").fetchall()
    names = [name for (name,) in known]
    if rows:
        return rows
    if experiment is None or experiment in names:
        raise BadInput(
            f"{experiment or database_path()} holds no baseline with another arm to compare; set "
            "training.arms to [baseline, transfer] and run again"
        )
    raise BadInput(
        f"experiment {experiment} is not in {database_path()}, which has {', '.join(names)}"
    )


def _calls(described: list[Described]) -> pa.Table:
    """Every side's bill."""
    calls = [read_parquet(of.profiled.calls) for of in described if of.profiled]
    return pa.concat_tables(calls) if calls else LLM_CALLS.empty_table()


def _scored(
    pipeline: Pipeline, splits: Splits, trained: list[Trained], described: list[Described]
) -> list[_Run]:
    held = {split: read_parquet(getattr(splits, split), [USER, ITEM]) for split in SPLITS}
    return [
        _Run(_run_id(pipeline, run, described), run, _values_of(pipeline.evaluation, run, held))
        for run in trained
    ]


def _values_of(
    config: Evaluation, run: Trained, held: Mapping[str, pa.Table]
) -> dict[str, UserValues]:
    """A run's values per split."""
    if run.predictions is not None:
        predicted = {"valid": run.rankings, "test": run.predictions}
        return {
            split: score_clicks(read_parquet(handle), split, config)
            for split, handle in predicted.items()
        }
    rankings = read_parquet(run.rankings, ["split", USER, "items"])
    return {split: score(rankings, held[split], split, config) for split in SPLITS}


def _run_id(pipeline: Pipeline, run: Trained, described: list[Described]) -> str:
    """Digest of what decides a run: for a baseline, nothing that concerns profiles."""
    return _digest(
        {
            "experiment": pipeline.experiment,
            "dataset": pipeline.dataset,
            "split": pipeline.split,
            "job": run.job,
            "rankings": run.rankings,
            "knowledge": _of_job(pipeline, run.job, described) if run.job.sides else None,
        }
    )


def _of_job(pipeline: Pipeline, job: Job, described: list[Described]) -> dict[str, str | None]:
    """What a job knows and how it was reduced; nothing for a baseline.

    Two controls hold nothing of any profile; the others are made of the profiles' targets.
    """
    known = knowledge([of for of in described if of.side in job.sides])
    if not job.sides or job.arm in ("genre-histogram", "history-svd"):
        return dict.fromkeys((*known, "reduction"))
    whole = not any(job.taps.values())
    return {**known, "reduction": "none" if whole else pipeline.targets_of(job.model).reduction}


def _differences(pipeline: Pipeline, runs: list[_Run]) -> tuple[Difference, ...]:
    test = [(run.trained.job, run.scores["test"]) for run in runs]
    facts = [asdict(contrast) for contrast in contrasts(test, pipeline.evaluation)]
    return tuple(Difference(**fact.pop("comparison"), **fact) for fact in facts)


def _references(pipeline: Pipeline, runs: list[_Run]) -> tuple[Reference, ...]:
    """Models that have a baseline and nothing else, best first."""
    metric, k = parse_metric(pipeline.evaluation.primary)
    knowing = {run.trained.job.model for run in runs if run.trained.job.arm != BASELINE}
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.trained.job.model not in knowing:
            value = float(run.scores["test"].values[metric, k].mean())
            values.setdefault(run.trained.job.model, []).append(value)
    references = [
        Reference(
            model=model,
            metric=metric,
            k=k,
            mean=mean(of_seeds),
            sd=stdev(of_seeds) if len(of_seeds) > 1 else None,
            seeds=len(of_seeds),
        )
        for model, of_seeds in values.items()
    ]
    return tuple(sorted(references, key=lambda reference: -reference.mean))


def _digest(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(content(value), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _run_rows(
    pipeline: Pipeline, evaluated: Evaluated, runs: list[_Run], described: list[Described]
) -> pa.Table:
    rows = []
    for run in runs:
        trained, job = run.trained, run.trained.job
        rows.append(
            {
                "run_id": run.run_id,
                "experiment": pipeline.experiment,
                "dataset": pipeline.dataset.name,
                "model": job.model,
                "arm": job.arm,
                "alignment": job.transfer.alignment if job.transfer else None,
                "layer": ", ".join(_layer(tap) for tap in job.taps.values() if tap) or None,
                "alpha": job.transfer.alpha if job.transfer else None,
                "seed": job.seed,
                "config_hash": evaluated.config_hash,
                "epochs_budget": job.budget.epochs,
                "epochs_run": len(trained.epochs),
                "best_epoch": trained.best_epoch,
                "train_seconds": trained.train_seconds,
                "flow_run_id": trained.flow_run_id,
                "git_sha": evaluated.git_sha,
                "started_at": trained.started_at,
                "finished_at": trained.finished_at,
                "config": json.dumps({**pipeline.identity(), "job": job.identity()}),
                **_of_job(pipeline, job, described),
            }
        )
    return pa.Table.from_pylist(rows)


def _layer(tap: Tap) -> str:
    """The tap's name, with its slice if it has one: `encoder[:half]`."""
    if tap.start is None and tap.stop is None:
        return tap.name
    return f"{tap.name}[{'' if tap.start is None else tap.start}:{tap.stop or ''}]"


def _metric_rows(runs: list[_Run]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"run_id": run.run_id, "split": split, "metric": metric, "k": k, "value": values.mean()}
            for run in runs
            for split, scores in run.scores.items()
            for (metric, k), values in scores.values.items()
        ]
    )


def _user_metric_rows(runs: list[_Run]) -> pa.RecordBatchReader:
    """One batch per run, metric and cut-off, made while DuckDB reads them."""
    return pa.RecordBatchReader.from_batches(
        _USER_METRICS,
        (
            pa.record_batch(
                [
                    pa.repeat(run.run_id, len(values)),
                    pa.array(run.scores["test"].users, pa.string()),
                    pa.repeat(metric, len(values)),
                    pa.repeat(pa.scalar(k, pa.int32()), len(values)),
                    pa.array(values),
                ],
                schema=_USER_METRICS,
            )
            for run in runs
            for (metric, k), values in run.scores["test"].values.items()
        ),
    )


def _epoch_rows(runs: list[_Run]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"run_id": run.run_id, **epoch.model_dump()}
            for run in runs
            for epoch in run.trained.epochs
        ]
    )


def _contrast_rows(
    pipeline: Pipeline, evaluated: Evaluated, described: list[Described]
) -> pa.Table:
    """No row where there is no baseline, or nothing beside it."""
    known = {
        "experiment": evaluated.experiment,
        "evaluation_id": evaluated.evaluation_id,
        "dataset": pipeline.dataset.name,
        **origin(described),
    }
    rows = [known | difference.model_dump() for difference in evaluated.differences]
    return pa.table(
        {name: [row[name] for row in rows] for name in (*known, *Difference.model_fields)}
    )


def _store(tables: Mapping[str, pa.Table | pa.RecordBatchReader]) -> None:
    """All or nothing: an interrupted evaluation leaves the database as it was."""
    with database() as connection:
        connection.execute("BEGIN")
        connection.execute((_SQL / "schema.sql").read_text())
        for name, table in tables.items():
            connection.register(name, table)
        connection.execute((_SQL / "store_evaluation.sql").read_text())
        connection.execute("COMMIT")


def _git_sha() -> str | None:
    """The commit of the project's own repository, None outside of one."""
    command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    root, sha = done.stdout.splitlines()
    return sha if Path(root).resolve() == PROJECT_ROOT else None
