"""Scores of trained models: per user, per slice, and the terms on which they are compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Self

import pyarrow as pa

from models.config import BASELINE, parse_metric
from models.evaluation.beyond_accuracy import Catalogue
from models.evaluation.slices import Slicing, sliced, sliced_clicks, slicing
from models.evaluation.user_scores import score, score_clicks
from models.schemas import GENRES, ITEM, USER
from models.statistics.comparability import Terms, split_digest
from tasks.evaluation import result_rows
from tasks.evaluation.inputs import Part
from tasks.evaluation.outputs import Reference
from tasks.evaluation.result_rows import Scored
from tasks.execution.cache_key import digest
from tasks.storage.artifacts import read_parquet
from tasks.training.outputs import Trained

SPLITS = ("valid", "test")


@dataclass(frozen=True)
class TestBed:
    """The data that runs are scored on.

    Attributes:
        held_out: users and items, by split.
        split_digest: over the interactions in train, valid and test.
        slicing: groups of users and items.
        catalogue: what is ranked.
    """

    held_out: Mapping[str, pa.Table]
    split_digest: str
    slicing: Slicing
    catalogue: Catalogue

    @classmethod
    def read(cls, part: Part) -> Self:
        """Read the split and the catalogue; slices also know who has a profile."""
        splits = part.splits
        train, valid, test = (
            read_parquet(pairs, [USER, ITEM]) for pairs in (splits.train, splits.valid, splits.test)
        )
        catalogue = Catalogue.of(read_parquet(part.items, [ITEM, GENRES]), train)
        described = (  # by a profile, or by a vector that was made elsewhere
            read_parquet(side.embedded.embeddings, [USER])[USER].combine_chunks()
            for side in part.described
            if side.side == "users"
        )
        return cls(
            held_out={"valid": valid, "test": test},
            split_digest=split_digest(train, valid, test),
            slicing=slicing(train, catalogue.items, next(described, None)),
            catalogue=catalogue,
        )


def score_points(parts: Iterable[Part]) -> dict[str | None, list[Scored]]:
    """Score every run of every point; a run that points share on the same data is scored once."""
    beds: dict[str, TestBed] = {}
    scored: dict[tuple[str, str], Scored] = {}
    points: dict[str | None, list[Scored]] = {}
    for part in parts:
        embedded = [described.embedded for described in part.described]
        data = digest({"splits": part.splits, "items": part.items, "embedded": embedded})
        if data not in beds:
            beds[data] = TestBed.read(part)
        for trained in part.trained:
            run_id = _run_id(part, trained)
            if (run_id, data) not in scored:
                scored[run_id, data] = _score(run_id, part, trained, beds[data])
            points.setdefault(part.point, []).append(scored[run_id, data])
    return points


def _score(run_id: str, part: Part, trained: Trained, bed: TestBed) -> Scored:
    """Score one run: per user, of rankings also what lists are like, and slices."""
    config = part.pipeline.evaluation
    terms = Terms.of(
        trained.job,
        part.pipeline.dataset.name,
        bed.split_digest,
        len(bed.catalogue.items),
        part.search_trials,
    )
    if trained.predictions is not None:
        tables = {
            "valid": read_parquet(trained.rankings),
            "test": read_parquet(trained.predictions),
        }
        values = {split: score_clicks(table, split, config) for split, table in tables.items()}
        slices = sliced_clicks(tables["test"], bed.slicing, config)
        return Scored(run_id, part, trained, terms, values, {}, slices)
    rankings = read_parquet(trained.rankings, ["split", USER, "items"])
    ranked = [split for split in SPLITS if split in rankings["split"].unique().to_pylist()]
    values = {split: score(rankings, bed.held_out[split], split, config) for split in ranked}
    beyond = {split: bed.catalogue.of_lists(rankings, split, config.k) for split in ranked}
    slices = sliced(values["test"], rankings, bed.held_out["test"], bed.slicing, config)
    return Scored(run_id, part, trained, terms, values, beyond, slices)


def _run_id(part: Part, trained: Trained) -> str:
    """Digest of what decides a run: for a baseline, nothing that concerns profiles."""
    job, pipeline = trained.job, part.pipeline
    known = result_rows.knowledge_of(pipeline, job, part.described) if job.sides else None
    return digest(
        {
            "experiment": pipeline.experiment,
            "dataset": pipeline.dataset,
            "split": pipeline.split,
            "job": job,
            "rankings": trained.rankings,
            "knowledge": known,
        }
    )


def references(runs: Sequence[Scored]) -> tuple[Reference, ...]:
    """Models that have a baseline and nothing else, best first."""
    if not runs:
        return ()
    metric, k = parse_metric(runs[0].part.pipeline.evaluation.primary)
    knowing = {run.trained.job.model for run in runs if run.trained.job.arm != BASELINE}
    values: dict[str, list[float]] = {}
    for run in runs:
        model = run.trained.job.model
        if model not in knowing:
            values.setdefault(model, []).append(float(run.values["test"].values[metric, k].mean()))
    found = [
        Reference(
            model=model,
            metric=metric,
            k=k,
            mean=mean(seeds),
            sd=stdev(seeds) if len(seeds) > 1 else None,
            seeds=len(seeds),
        )
        for model, seeds in values.items()
    ]
    return tuple(sorted(found, key=lambda reference: -reference.mean))
