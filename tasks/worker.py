"""Training in processes of its own, which start fast because they need no Prefect.

RecBole and torch keep global state (random numbers, threads), so trainings share no process
while they run; a process is used again for the next one.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.config import Job, Side, parse_metric
from models.embeddings import to_matrix
from models.errors import BadInput
from models.schemas import (
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
from tasks.handoffs import Trained
from tasks.progress import Tracker
from tasks.storage import Handle, read_parquet, write_bytes, write_parquet

if TYPE_CHECKING:
    from models.containment import Log, Universe
    from models.holdout import Clicks, Holdout
    from models.recommender import Recommender
    from models.transfer.wrapper import ModelWrapper

P = ParamSpec("P")
R = TypeVar("R")

# By default glibc hands each freed batch of tens of megabytes back to the kernel, which then
# clears the pages anew for the next one: a quarter of SimpleX's time per epoch.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
}

_pool: ProcessPoolExecutor | None = None


@contextmanager
def worker_processes(n: int) -> Iterator[None]:
    """Let `in_worker` use up to `n` processes, which start when they are first needed."""
    global _pool
    for name, value in _KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    context = get_context("spawn")
    with ProcessPoolExecutor(
        n, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        _pool = pool
        try:
            yield
        finally:
            _pool = None


def in_worker(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a worker process; in this one where there are none."""
    if _pool is None:
        return function(*args, **kwargs)
    return _pool.submit(function, *args, **kwargs).result()


def _end_with_parent(parent: int) -> None:
    """Leave no worker behind when the run that started it is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a training reads; held-out test data is not among them."""

    train: Handle
    valid: Handle
    users: Handle
    items: Handle
    targets: dict[Side, Handle]

    def handles(self) -> dict[str, Handle]:
        """All of them, by name."""
        parts = {"train": self.train, "valid": self.valid, "users": self.users, "items": self.items}
        return parts | {f"targets of {side}": handle for side, handle in self.targets.items()}


def train(job: Job, inputs: Inputs, tracker: Tracker, flow_run_id: str | None) -> Trained:
    """Train one model and rank the catalogue for every user with training interactions."""
    import torch
    from safetensors.torch import save

    from models.training import Diverged, fit

    started_at = datetime.now(UTC)
    torch.set_num_threads(job.budget.threads)
    recommender, wrapper = _prepared(job, inputs)
    validate, offered = _held_out(recommender, job, inputs.valid)
    try:
        fitted = fit(recommender, wrapper, validate, job.budget, job.seed, tracker)
    except Diverged as error:
        if not error.weights:
            raise BadInput(str(error)) from error
        kept = write_bytes("weights", ".safetensors", save(error.weights))
        raise BadInput(f"{error}. The best weights until then are in {kept.file}") from error
    return Trained(
        job=job,
        rankings=write_parquet("training", offered(), inputs.handles(), job.identity()),
        weights=write_bytes("weights", ".safetensors", save(recommender.weights())),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        train_seconds=fitted.seconds,
        flow_run_id=flow_run_id,
        started_at=started_at,
        finished_at=datetime.now(UTC),
    )


def predict(job: Job, weights: Handle, inputs: Inputs, test: Handle) -> Handle:
    """The trained model's `PREDICTIONS` of the test part's pairs."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(job.budget.threads)
    recommender, _ = _prepared(job, inputs)
    recommender.restore(load_file(weights.verify()))
    _, predicted = _held_out(recommender, job, test)
    known = {**inputs.handles(), "weights": weights, "test": test}
    return write_parquet("predictions", predicted(), known, job.identity())


def _held_out(
    recommender: "Recommender", job: Job, held: Handle
) -> tuple[Callable[[], float], Callable[[], pa.Table]]:
    """How the model is scored on held-out interactions, and what it offers in the end."""
    from models.clicks import likes
    from models.holdout import Clicks, Holdout

    metric, k = parse_metric(job.budget.valid_metric)
    if job.like_from is not None:
        ratings = read_parquet(held, [RATING])[RATING]
        liked = likes(ratings, job.like_from)
        clicks = Clicks.of(recommender, _column(held, USER), _column(held, ITEM), liked)
        return (
            lambda: clicks.score(recommender, metric),
            lambda: _predictions(recommender, clicks),
        )
    assert k is not None
    holdout = Holdout.of(recommender, _pairs(held))
    return (
        lambda: holdout.score(recommender, metric, k),
        lambda: _rankings(recommender, holdout, job.k),
    )


def _predictions(recommender: "Recommender", clicks: "Clicks") -> pa.Table:
    """Schema `PREDICTIONS`."""
    return pa.table(
        {
            USER: pa.array(recommender.user_tokens[clicks.users], pa.string()),
            ITEM: pa.array(recommender.item_tokens[clicks.items], pa.string()),
            "liked": clicks.labels,
            "probability": clicks.probabilities(recommender),
        },
        schema=PREDICTIONS,
    )


def _prepared(job: Job, inputs: Inputs) -> tuple["Recommender", "ModelWrapper"]:
    """The recommender with its arm's knowledge, or none."""
    from models.probing import probe
    from models.recommender import Recommender
    from models.transfer.wrapper import Knowledge, ModelWrapper

    log = _log(inputs.train, job.like_from)
    recommender = Recommender(job.model, job.hyperparameters, log, _universe(inputs), seed=job.seed)
    aligned = {
        side: recommender.align(*_vectors(handle), side) for side, handle in inputs.targets.items()
    }
    if job.kar is not None:
        recommender.feed(job.kar, aligned)
    if job.transfer is None:
        return recommender, ModelWrapper(recommender)
    if recommender.entry.takes_embeddings:
        recommender.know(job.transfer.alpha, aligned)
        return recommender, ModelWrapper(recommender)
    knowledge = []
    for side, tap in job.taps.items():
        entrance = probe(job.model, job.hyperparameters, tap, side)
        assert entrance is not None
        assert entrance.tap is not None
        assert entrance.width is not None
        knowledge.append(Knowledge(side, entrance.tap, entrance.width, aligned[side]))
    return recommender, ModelWrapper(recommender, job.transfer, knowledge, job.seed)


def _log(handle: Handle, like_from: float | None) -> "Log":
    from models.clicks import likes
    from models.containment import Log

    table = read_parquet(handle, [USER, ITEM, RATING, TIMESTAMP])
    times = table[TIMESTAMP]
    return Log(
        table[USER].to_pylist(),
        table[ITEM].to_pylist(),
        times=None if times.null_count else np.asarray(times, dtype=np.int64),
        labels=None if like_from is None else likes(table[RATING], like_from).astype(np.float32),
    )


def _universe(inputs: Inputs) -> "Universe":
    from models.containment import Universe

    items = read_parquet(inputs.items, [ITEM, YEAR, GENRES])
    years = ["" if year is None else str(year) for year in items[YEAR].to_pylist()]
    genres = [of or [] for of in items[GENRES].to_pylist()]
    return Universe(
        _column(inputs.users, USER),
        items[ITEM].to_pylist(),
        years if any(years) else (),
        genres if any(genres) else (),
    )


def _column(handle: Handle, column: str) -> list[str]:
    values: list[str] = read_parquet(handle, [column])[column].to_pylist()
    return values


def _pairs(handle: Handle) -> tuple[list[str], list[str]]:
    """Pairs of raw ids, oldest first."""
    table = read_parquet(handle, [USER, ITEM, TIMESTAMP]).sort_by(TIMESTAMP)
    return table[USER].to_pylist(), table[ITEM].to_pylist()


def _vectors(handle: Handle) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and float32 (n, width) of a targets artifact."""
    table = read_parquet(handle)
    return table[table.column_names[0]].to_pylist(), to_matrix(table[TARGET])


def _rankings(recommender: "Recommender", holdout: "Holdout", k: int) -> pa.Table:
    """Both splits' rankings (schema `RANKINGS`) for every user with training interactions."""
    from models.ranking import rank

    users = np.unique(recommender.train_users)
    k = min(k, recommender.n_items - 1)
    valid = _ranking_table(recommender, "valid", users, *rank(recommender, users, holdout.seen, k))
    recommender.extend_history(*holdout.newest_last)
    test = _ranking_table(
        recommender, "test", users, *rank(recommender, users, holdout.seen_or_held, k)
    )
    return pa.concat_tables((valid, test))


def _ranking_table(
    recommender: "Recommender",
    split: str,
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> pa.Table:
    """One row per user; places for which no item is left are dropped."""
    offered = np.isfinite(scores)
    offsets = np.concatenate(([0], np.cumsum(offered.sum(axis=1)))).astype(np.int32)
    tokens = recommender.item_tokens[items[offered]]
    return pa.table(
        {
            "split": pa.array([split] * len(users)),
            USER: pa.array(recommender.user_tokens[users]),
            "items": pa.ListArray.from_arrays(offsets, pa.array(tokens, pa.string())),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(scores[offered])),
        },
        schema=RANKINGS,
    )
