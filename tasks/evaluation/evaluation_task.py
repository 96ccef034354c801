"""Stage *evaluation*: metrics of every run and their comparison, the only writer of DuckDB."""

import subprocess
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
from prefect.artifacts import create_table_artifact
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from slugify import slugify

from models.config import BASELINE
from models.evaluation.slices import Slice, spanning
from models.schemas import LLM_CALLS
from models.statistics.claims import Chain
from models.statistics.comparability import Run
from models.statistics.contrasts import Contrast, contrasts, slice_contrasts
from tasks.evaluation import result_rows
from tasks.evaluation.family import declared
from tasks.evaluation.inputs import Part, PointResult, Trial
from tasks.evaluation.outputs import Evaluated
from tasks.evaluation.result_rows import Scored
from tasks.evaluation.scoring import references, score_points
from tasks.execution.cache_key import digest
from tasks.execution.stage import stage
from tasks.results.database import create_tables, database, database_path, register_rows
from tasks.results.queries import Rows
from tasks.storage.artifacts import PROJECT_ROOT, read_parquet
from tasks.storage.sql_scripts import script

ScoredPoints = Mapping[str | None, Sequence[Scored]]
"""Scored runs by point, under None those of a run, which has no points."""


@stage("evaluation", version=13)
def evaluation(
    experiment: str,
    parts: Sequence[Part],
    points: Sequence[PointResult] = (),
    trials: Sequence[Trial] = (),
) -> Evaluated:
    """Declare what is claimed, score every run, compare arms on test, write it to DuckDB.

    Arms are compared within points, over all splits of points that differ in the split's seed
    alone. A run that points share is scored and stored once. Rows of a run are replaced as long as
    what decides it stays the same; the experiment's comparison is replaced in any case.

    `parts` are the trained models: one part for a run; points that failed have none. `points` say
    how every point of an experiment ended, excluded ones included.

    Raises:
        BadInput: if no user can be scored, or the database stays busy.
    """
    pools = {point.point: point.pool for point in points}
    family, family_hash = declared(parts, pools)  # before test is scored
    get_run_logger().info("family %s: %d chains of claims", family_hash, len(family))
    by_point = score_points(parts)
    scored = _pooled(by_point, pools)
    runs = _different_runs(scored)
    found, by_slice = _contrasts(scored, parts, family)
    slices = result_rows.slice_rows(runs)
    evaluated = Evaluated(
        experiment=experiment,
        **_identity(experiment, parts, runs, points, trials, family_hash),
        git_sha=_git_sha(),
        run_ids=tuple(sorted(run.run_id for run in runs)),
        contrasts=tuple(contrast for contrast in found if contrast.against == BASELINE),
        references=references(runs),
        n_contrasts=len(found),
        n_slices=len(slices),
        n_points=len(points),
        n_trials=len(trials),
    )
    tables: dict[str, Rows | pa.Table | pa.RecordBatchReader] = {
        "points": result_rows.point_rows(evaluated, points, by_point),
        "trials": result_rows.trial_rows(evaluated, trials),
    }
    if runs:
        parts_by_arm = _parts_by_arm(scored)
        tables |= {
            "runs": result_rows.run_rows(evaluated, runs, _points_of_runs(scored)),
            "metrics": result_rows.metric_rows(runs),
            "user_metrics": result_rows.user_metric_rows(runs),
            "epochs": result_rows.epoch_rows(runs),
            "slices": slices,
            "contrasts": result_rows.contrast_rows(evaluated, found, parts_by_arm),
            "slice_contrasts": result_rows.slice_contrast_rows(evaluated, by_slice, parts_by_arm),
            "llm_calls": _calls(parts),
        }
    _store(tables)
    get_run_logger().info(
        "%d runs and %d comparisons written to %s", len(runs), len(found), database_path()
    )
    if points and TaskRunContext.get() is not None:
        create_table_artifact(
            key=f"points-{slugify(experiment)}",
            table=[point.model_dump() for point in points],
            description=f"How the points of {experiment} ended.",
        )
    return evaluated


def _identity(
    experiment: str,
    parts: Sequence[Part],
    runs: Sequence[Scored],
    points: Sequence[PointResult],
    trials: Sequence[Trial],
    family: str,
) -> dict[str, str]:
    """Digests of the configurations, and of everything that decides the evaluation."""
    hashes = sorted({part.pipeline.digest() for part in parts})
    decided = {
        "experiment": experiment,
        "config": hashes,
        "points": points,
        "trials": trials,
        "runs": sorted(run.run_id for run in runs),
        "family": family,
    }
    return {
        "family": family,
        "config_hash": hashes[0] if len(hashes) == 1 else digest({"config": hashes}),
        "evaluation_id": digest(decided),
    }


def _pooled(by_point: ScoredPoints, pools: Mapping[str, str | None]) -> ScoredPoints:
    """Runs by pool: the splits of an experiment side by side."""
    pooled: dict[str | None, list[Scored]] = {}
    for point, runs in by_point.items():
        pool = pools.get(point, point) if point is not None else None
        pooled.setdefault(pool, []).extend(runs)
    return pooled


def _different_runs(scored: ScoredPoints) -> list[Scored]:
    runs: dict[str, Scored] = {}
    for run in chain.from_iterable(scored.values()):
        runs.setdefault(run.run_id, run)
    return list(runs.values())


def _points_of_runs(scored: ScoredPoints) -> dict[str, str | None]:
    """The point of every run; None for a run that several points share."""
    points: dict[str, set[str | None]] = {}
    for point, runs in scored.items():
        for run in runs:
            points.setdefault(run.run_id, set()).add(point)
    return {run_id: found.pop() if len(found) == 1 else None for run_id, found in points.items()}


def _parts_by_arm(scored: ScoredPoints) -> result_rows.PartsByArm:
    parts: result_rows.PartsByArm = {}
    for point, runs in scored.items():
        for run in runs:
            job = run.trained.job
            for where in (point, None):
                parts.setdefault((where, job.model, job.arm), run.part)
    return parts


def _contrasts(
    scored: ScoredPoints, parts: Sequence[Part], family: Sequence[Chain]
) -> tuple[list[Contrast], dict[Slice, list[Contrast]]]:
    """All contrasts, over all users and within slices."""
    if not parts:
        return [], {}
    config = parts[0].pipeline.evaluation
    whole = {point: [run.run() for run in runs] for point, runs in scored.items()}
    sliced: dict[Slice, dict[str | None, list[Run]]] = {}
    for point, runs in scored.items():
        spans = spanning(part for run in runs for part in run.slices)
        for run in runs:
            for part, values in run.slices.items():
                whole_slice = spans[part.kind, part.name]
                sliced.setdefault(whole_slice, {}).setdefault(point, []).append(run.run(values))
    return (
        contrasts(whole, config.columns(), config.primary, family),
        slice_contrasts(sliced, config.columns(), config.primary),
    )


def _calls(parts: Sequence[Part]) -> pa.Table:
    """Calls of every different set of profiles."""
    profiled = [described.profiled for part in parts for described in part.described]
    calls = {found.calls.sha256: found.calls for found in profiled if found}
    tables = [read_parquet(table) for table in calls.values()]
    return pa.concat_tables(tables) if tables else LLM_CALLS.empty_table()


def _store(tables: Mapping[str, Rows | pa.Table | pa.RecordBatchReader]) -> None:
    """Write all rows or none: an interrupted evaluation leaves the database as it was.

    Without `runs` among the tables only points and trials are replaced.
    """
    scripts = ("store_evaluation", "store_points") if "runs" in tables else ("store_points",)
    with database() as connection:
        connection.execute("BEGIN")
        create_tables(connection)
        for table, rows in tables.items():
            if isinstance(rows, list):
                register_rows(connection, table, rows)
            else:
                connection.register(f"new_{table}", rows)
        for name in scripts:
            connection.execute(script(f"evaluation/{name}"))
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
