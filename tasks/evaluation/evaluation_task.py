"""Stage *evaluation*: metrics of every run and their comparison, the only writer of DuckDB."""

import pyarrow as pa
from prefect.logging import get_run_logger

from models.config import Pipeline
from models.evaluation.slices import Slice
from models.evaluation.user_scores import BASELINE
from models.schemas import LLM_CALLS
from models.statistics.contrasts import Contrast, Points, contrasts, slice_contrasts
from tasks.dataset.outputs import Splits
from tasks.embeddings.outputs import Described
from tasks.evaluation import result_rows
from tasks.evaluation.outputs import Evaluated
from tasks.evaluation.result_rows import Scored
from tasks.evaluation.scoring import Ground, Scoring, references
from tasks.evaluation.store import digest, git_sha, store
from tasks.execution.stage import stage
from tasks.results.database import database_path
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.outputs import Trained


@stage("evaluation", version=7)
def evaluation(
    pipeline: Pipeline,
    splits: Splits,
    trained: list[Trained],
    described: list[Described],
    items: Handle,
) -> Evaluated:
    """Score every run on valid and test, compare the arms on test, write all of it to DuckDB.

    Rows of a run are replaced as long as what decides it stays the same (see `_run_id`); the
    experiment's comparison is replaced in any case.

    Args:
        pipeline: the run's configuration.
        splits: train, valid and test.
        trained: what was trained.
        described: each side's profiles and embeddings.
        items: the catalogue that rankings are made of.

    Raises:
        BadInput: if no user can be scored, or the database stays busy.
    """
    runs = Scoring(pipeline, described, Ground.of(splits, items, described)).of(trained)
    found = contrasts(
        {None: [run.run() for run in runs]},
        pipeline.evaluation.columns(),
        pipeline.evaluation.primary,
    )
    by_slice = _slice_contrasts(pipeline, runs)
    slices = result_rows.slice_rows(runs)
    evaluated = _evaluated(pipeline, runs, found, slices.num_rows)
    store(
        {
            "new_runs": result_rows.run_rows(pipeline, evaluated, runs, described),
            "new_metrics": result_rows.metric_rows(runs),
            "new_user_metrics": result_rows.user_metric_rows(runs),
            "new_epochs": result_rows.epoch_rows(runs),
            "new_slices": slices,
            "new_contrasts": result_rows.contrast_rows(pipeline, evaluated, described, found),
            "new_slice_contrasts": result_rows.slice_contrast_rows(
                pipeline, evaluated, described, by_slice
            ),
            "new_llm_calls": calls(described),
        }
    )
    get_run_logger().info(
        "%d runs and %d comparisons written to %s", len(runs), len(found), database_path()
    )
    return evaluated


def _evaluated(
    pipeline: Pipeline, runs: list[Scored], found: list[Contrast], n_slices: int
) -> Evaluated:
    run_ids = tuple(sorted(run.run_id for run in runs))
    return Evaluated(
        experiment=pipeline.experiment,
        evaluation_id=digest({"config": pipeline.digest(), "runs": run_ids}),
        config_hash=pipeline.digest(),
        git_sha=git_sha(),
        run_ids=run_ids,
        contrasts=tuple(contrast for contrast in found if contrast.against == BASELINE),
        references=references(pipeline, runs),
        n_contrasts=len(found),
        n_slices=n_slices,
    )


def calls(described: list[Described]) -> pa.Table:
    """Every side's bill."""
    calls = [read_parquet(of.profiled.calls) for of in described if of.profiled]
    return pa.concat_tables(calls) if calls else LLM_CALLS.empty_table()


def _slice_contrasts(pipeline: Pipeline, runs: list[Scored]) -> dict[Slice, list[Contrast]]:
    parts = dict.fromkeys(part for run in runs for part in run.slices)
    slices: dict[Slice, Points] = {
        part: {None: [run.run(run.slices[part]) for run in runs if part in run.slices]}
        for part in parts
    }
    config = pipeline.evaluation
    return slice_contrasts(slices, config.columns(), config.primary)
