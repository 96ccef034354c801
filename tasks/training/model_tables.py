"""Between artifacts and models: a training's inputs; its rankings or predicted likes as tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.arrow import Ints, Singles
from models.config import Job, Side, parse_metric
from models.embeddings.text_batches import to_matrix
from models.schemas import (
    FEATURES,
    GENRES,
    ITEM,
    PREDICTIONS,
    RANKINGS,
    RATING,
    TARGET,
    TIMESTAMP,
    USER,
    YEAR,
)
from tasks.storage.artifacts import Handle, read_parquet

if TYPE_CHECKING:
    from models.recommenders.recbole_adapter import Column, Log, Universe
    from models.recommenders.recommender import Recommender
    from models.training.validation import Clicks, Holdout


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a training reads; held-out test data is not among them."""

    train: Handle
    valid: Handle
    users: Handle
    items: Handle
    targets: dict[Side, Handle]
    initial: Handle | None = None

    def handles(self) -> dict[str, Handle]:
        """List all of them, by name."""
        parts = {"train": self.train, "valid": self.valid, "users": self.users, "items": self.items}
        if self.initial is not None:
            parts["initial"] = self.initial
        return parts | {f"targets of {side}": handle for side, handle in self.targets.items()}

    def log(self, like_from: float | None) -> "Log":
        """Read the training interactions, with likes where a rating decides."""
        from models.evaluation.click_metrics import likes
        from models.recommenders.recbole_adapter import Log

        file = self.train.verify()

        def column(name: str) -> pa.ChunkedArray:  # one at a time, since strings are large
            return pq.read_table(file, columns=[name])[name]

        times, liked = column(TIMESTAMP), None
        if like_from is not None:
            liked = likes(column(RATING), like_from).astype(np.float32)
        return Log(
            column(USER).dictionary_encode(),
            column(ITEM).dictionary_encode(),
            times=None if times.null_count else np.asarray(times, dtype=np.int64),
            labels=liked,
        )

    def universe(self) -> "Universe":
        """Read all users and items with their features."""
        from models.recommenders.recbole_adapter import Universe

        items, users = read_parquet(self.items), read_parquet(self.users)
        described: dict[str, Column] = {
            YEAR: ["" if year is None else str(year) for year in items[YEAR].to_pylist()],
            GENRES: _words(items, GENRES),
            "item_features": _words(items, FEATURES),
        }
        of_items = {name: rows for name, rows in described.items() if any(rows)}
        told = _words(users, FEATURES)
        of_users: dict[str, Column] = {"user_features": told} if any(told) else {}
        return Universe(users[USER], items[ITEM], of_items, of_users)


def _words(table: pa.Table, column: str) -> list[list[str]]:
    """A column of lists, empty where a row has none; no rows without the column."""
    rows = table[column].to_pylist() if column in table.column_names else []
    return [row or [] for row in rows]


def vectors_of(handle: Handle) -> tuple[pa.ChunkedArray, Singles]:
    """Read a targets artifact: ids, and float32 (n, width)."""
    table = read_parquet(handle)
    return table[table.column_names[0]], to_matrix(table[TARGET])


def scoring(
    recommender: "Recommender", job: Job, held: Handle
) -> tuple[Callable[[], float], Callable[[], pa.Table], Callable[[], float | None]]:
    """Say how a model is scored on held-out interactions, and how its result is made.

    Returns:
        Its score, higher is better; its table: schema `RANKINGS`, or `PREDICTIONS` of the held-out
        pairs where likes are predicted; the score's standard error where it is that of a sample.
    """
    from models.evaluation.click_metrics import likes
    from models.training.validation import Clicks, Holdout

    metric, k = parse_metric(job.budget.valid_metric)
    if job.like_from is not None:
        table = read_parquet(held, [USER, ITEM, RATING])
        liked = likes(table[RATING], job.like_from)
        pairs = table[USER], table[ITEM]
        clicks = Clicks.from_pairs(recommender, *pairs, liked)
        return (
            lambda: clicks.score(recommender, metric),
            lambda: _predictions(recommender, clicks),
            lambda: None,
        )
    assert k is not None
    table = read_parquet(held, [USER, ITEM, TIMESTAMP]).sort_by(TIMESTAMP)
    pairs = table[USER], table[ITEM]
    holdout = Holdout.from_pairs(recommender, pairs, job.candidates, job.budget.validation_users)
    return (
        lambda: holdout.score(recommender, metric, k),
        lambda: _rankings(recommender, holdout, job.k),
        lambda: holdout.standard_error(recommender, metric, k) if holdout.share < 1 else None,
    )


def _predictions(recommender: "Recommender", clicks: "Clicks") -> pa.Table:
    return pa.table(
        {
            USER: _names(recommender, USER, clicks.users),
            ITEM: _names(recommender, ITEM, clicks.items),
            "liked": clicks.labels,
            "probability": clicks.probabilities(recommender),
        },
        schema=PREDICTIONS,
    )


def _rankings(recommender: "Recommender", holdout: "Holdout", k: int) -> pa.Table:
    """Both splits' rankings for every user with training interactions."""
    from models.recommenders.top_k import rank

    users = np.unique(recommender.train_users)
    k, hidden = min(k, recommender.n_items - 1), [holdout.seen, holdout.also_held]
    ranked = rank(recommender, users, hidden, k)
    if recommender.entry.family == "sequential":  # which scores anew, given the validation items
        recommender.extend_history(*holdout.newest_last)
        ranked[1] = rank(recommender, users, hidden, k)[1]
    # Each is let go once its table is made, a quarter of a gigabyte for a million users.
    return pa.concat_tables(
        [ranking_table(recommender, split, users, *ranked.pop(0)) for split in ("valid", "test")]
    )


def ranking_table(
    recommender: "Recommender", split: str, users: Ints, items: Ints, scores: Singles
) -> pa.Table:
    """Make one row per user, schema `RANKINGS`; places for which no item is left are dropped."""
    ranked = np.isfinite(scores)
    offsets = np.concatenate(([0], np.cumsum(ranked.sum(axis=1)))).astype(np.int32)
    names = _names(recommender, ITEM, items[ranked])
    return pa.table(
        {
            "split": pa.array([split] * len(users)),
            USER: _names(recommender, USER, users),
            "items": pa.ListArray.from_arrays(offsets, names),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(scores[ranked])),
        },
        schema=RANKINGS,
    )


def _names(recommender: "Recommender", column: str, ids: Ints) -> pa.Array:
    return recommender.names[column].take(pa.array(ids)).cast(pa.string())
