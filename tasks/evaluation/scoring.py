"""Scores of trained models: per user, per slice, and what they are compared on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Self

import pyarrow as pa

from models.config import BASELINE, Pipeline, parse_metric
from models.evaluation.slices import (
    Catalogue,
    Slicing,
    beyond_accuracy,
    sliced,
    sliced_clicks,
    slicing,
)
from models.evaluation.user_scores import score, score_clicks
from models.schemas import ITEM, USER
from models.statistics.comparability import Terms, split_digest
from tasks.dataset.outputs import Splits
from tasks.embeddings.outputs import Described
from tasks.evaluation import result_rows
from tasks.evaluation.outputs import Reference
from tasks.evaluation.result_rows import Scored
from tasks.evaluation.store import digest
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.outputs import Trained

SPLITS = ("valid", "test")


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


def _run_id(pipeline: Pipeline, run: Trained, described: list[Described]) -> str:
    """Digest of what decides a run: for a baseline, nothing that concerns profiles."""
    return digest(
        {
            "experiment": pipeline.experiment,
            "dataset": pipeline.dataset,
            "split": pipeline.split,
            "job": run.job,
            "rankings": run.rankings,
            "knowledge": result_rows.of_job(pipeline, run.job, described)
            if run.job.sides
            else None,
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
