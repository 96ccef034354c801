"""Stage *evaluation*: metrics of every run and their comparison, the only writer of DuckDB."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Self

import pyarrow as pa
from prefect.logging import get_run_logger

from models.config import Pipeline, parse_metric
from models.contrasts import Contrast, contrasts, slice_contrasts
from models.evaluation import BASELINE, score, score_clicks
from models.schemas import ITEM, LLM_CALLS, USER
from models.slices import Catalogue, Slice, Slicing, beyond_accuracy, sliced, sliced_clicks, slicing
from models.terms import Terms, split_digest
from tasks import evaluation_rows as rows
from tasks.caching import content, stage
from tasks.database import database, database_path
from tasks.evaluation_rows import Scored
from tasks.handoffs import Described, Splits, Trained
from tasks.result_handoffs import Evaluated, Reference
from tasks.storage import PROJECT_ROOT, Handle, read_parquet

SPLITS = ("valid", "test")

_SQL = Path(__file__).parent / "sql"


@stage("evaluation", version=6)
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
        [run.run() for run in runs], pipeline.evaluation.columns(), pipeline.evaluation.primary
    )
    by_slice = _slice_contrasts(pipeline, runs)
    slices = rows.slice_rows(runs)
    evaluated = _evaluated(pipeline, runs, found, slices.num_rows)
    store(
        {
            "new_runs": rows.run_rows(pipeline, evaluated, runs, described),
            "new_metrics": rows.metric_rows(runs),
            "new_user_metrics": rows.user_metric_rows(runs),
            "new_epochs": rows.epoch_rows(runs),
            "new_slices": slices,
            "new_contrasts": rows.contrast_rows(pipeline, evaluated, described, found),
            "new_slice_contrasts": rows.slice_contrast_rows(
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
        differences=rows.differences(of for of in found if of.against == BASELINE),
        others=rows.differences(of for of in found if of.against != BASELINE and of.is_primary),
        references=references(pipeline, runs),
        n_contrasts=len(found),
        n_slices=n_slices,
    )


def calls(described: list[Described]) -> pa.Table:
    """Every side's bill."""
    calls = [read_parquet(of.profiled.calls) for of in described if of.profiled]
    return pa.concat_tables(calls) if calls else LLM_CALLS.empty_table()


@dataclass(frozen=True)
class Ground:
    """What runs on the same data are scored on."""

    held: Mapping[str, pa.Table]
    """Users and items, by split."""
    split_digest: str
    slicing: Slicing
    catalogue: Catalogue

    @classmethod
    def of(cls, splits: Splits, items: Handle, described: list[Described]) -> Self:
        """Read the split and the catalogue; slices also know who has a profile."""
        train, valid, test = (
            read_parquet(part, [USER, ITEM]) for part in (splits.train, splits.valid, splits.test)
        )
        everything = read_parquet(items, [ITEM])[ITEM].combine_chunks()
        return cls(
            held={"valid": valid, "test": test},
            split_digest=split_digest(train, valid, test),
            slicing=slicing(train, everything, _profiled(described)),
            catalogue=Catalogue.of(everything, train),
        )


class Scoring:
    """Scores a pipeline's runs; `search_trials` is how many settings were tried before."""

    def __init__(
        self,
        pipeline: Pipeline,
        described: list[Described],
        ground: Ground,
        search_trials: int = 0,
    ) -> None:
        self._pipeline, self._described, self._ground = pipeline, described, ground
        self._search_trials = search_trials

    def of(self, trained: list[Trained]) -> list[Scored]:
        """Every run's values; of rankings also what slices, coverage and novelty say."""
        return [self.score(run) for run in trained]

    def run_id(self, run: Trained) -> str:
        """See `_run_id`."""
        return _run_id(self._pipeline, run, self._described)

    def score(self, run: Trained) -> Scored:
        """One run's values."""
        run_id, ground = self.run_id(run), self._ground
        terms = Terms.of(
            run.job,
            self._pipeline.dataset.name,
            ground.split_digest,
            len(ground.catalogue.items),
            self._search_trials,
        )
        config = self._pipeline.evaluation
        if run.predictions is not None:
            valid, test = read_parquet(run.rankings), read_parquet(run.predictions)
            values = {
                split: score_clicks(table, split, config)
                for split, table in (("valid", valid), ("test", test))
            }
            slices = sliced_clicks(test, ground.slicing, config)
            return Scored(run_id, run, terms, values, {}, slices)
        rankings = read_parquet(run.rankings, ["split", USER, "items"])
        values = {split: score(rankings, ground.held[split], split, config) for split in SPLITS}
        return Scored(
            run_id,
            run,
            terms,
            values,
            {
                split: beyond_accuracy(rankings, split, ground.catalogue, config.k)
                for split in SPLITS
            },
            sliced(values["test"], rankings, ground.held["test"], ground.slicing, config),
        )


def _profiled(described: list[Described]) -> pa.Array | None:
    """Users with a profile, or with a vector that was made elsewhere."""
    for of in described:
        if of.side == "users":
            return read_parquet(of.embedded.embeddings, [USER])[USER].combine_chunks()
    return None


def _slice_contrasts(pipeline: Pipeline, runs: list[Scored]) -> dict[Slice, list[Contrast]]:
    parts = dict.fromkeys(part for run in runs for part in run.slices)
    slices = {
        part: [run.run(run.slices[part]) for run in runs if part in run.slices] for part in parts
    }
    config = pipeline.evaluation
    return slice_contrasts(slices, config.columns(), config.primary)


def _run_id(pipeline: Pipeline, run: Trained, described: list[Described]) -> str:
    """Digest of what decides a run: for a baseline, nothing that concerns profiles."""
    return digest(
        {
            "experiment": pipeline.experiment,
            "dataset": pipeline.dataset,
            "split": pipeline.split,
            "job": run.job,
            "rankings": run.rankings,
            "knowledge": rows.of_job(pipeline, run.job, described) if run.job.sides else None,
        }
    )


def references(pipeline: Pipeline, runs: Sequence[Scored]) -> tuple[Reference, ...]:
    """Models that have a baseline and nothing else, best first."""
    metric, k = parse_metric(pipeline.evaluation.primary)
    knowing = {run.trained.job.model for run in runs if run.trained.job.arm != BASELINE}
    values: dict[str, list[float]] = {}
    for run in runs:
        if run.trained.job.model not in knowing:
            value = float(run.values["test"].values[metric, k].mean())
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


def digest(value: Mapping[str, Any]) -> str:
    """16 hex digits over content."""
    canonical = json.dumps(content(value), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def store(
    tables: Mapping[str, pa.Table | pa.RecordBatchReader],
    scripts: Sequence[str] = ("store_evaluation",),
) -> None:
    """All or nothing: an interrupted evaluation leaves the database as it was.

    Args:
        tables: new rows, by the name that the scripts know.
        scripts: in `sql/`.
    """
    with database() as connection:
        connection.execute("BEGIN")
        connection.execute((_SQL / "schema.sql").read_text())
        for name, table in tables.items():
            connection.register(name, table)
        for script in scripts:
            connection.execute((_SQL / f"{script}.sql").read_text())
        connection.execute("COMMIT")


def git_sha() -> str | None:
    """The commit of the project's own repository, None outside of one."""
    command = ["git", "-C", str(PROJECT_ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    root, sha = done.stdout.splitlines()
    return sha if Path(root).resolve() == PROJECT_ROOT else None
