"""Stage *training*: one RecBole model, one arm, one seed; held-out test data never comes here."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect.runtime import flow_run

from models.config import Job, Model, Tap, parse_metric
from models.schemas import ITEM, RANKINGS, TARGET, USER
from tasks.caching import stage
from tasks.handoffs import Trained
from tasks.progress import track
from tasks.storage import Handle, read_parquet, write_bytes, write_parquet

if TYPE_CHECKING:
    from models.holdout import Holdout
    from models.recommender import Recommender


def tapped(models: dict[str, Model]) -> dict[str, tuple[Tap, int]]:
    """Each model's tap and its width, found by building the model on a toy data set.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter, a value of the wrong type
            or a tap that is not there or does not fire.
    """
    from models.recommender import probe

    return {
        name: probe(name, settings.hyperparameters, settings.tap)
        for name, settings in models.items()
    }


@stage("training", version=1)
def training(
    job: Job,
    train: Handle,
    valid: Handle,
    users: Handle,
    items: Handle,
    targets: Handle | None,
) -> Trained:
    """Train one model and rank the catalogue for every user with training interactions.

    Args:
        job: what is trained.
        train: interactions to learn from.
        valid: interactions for early stopping.
        users: all users, for internal ids.
        items: all items, for internal ids and as candidates.
        targets: the profiles' targets; None for a baseline.
    """
    import torch
    from safetensors.torch import save

    from models.holdout import Holdout
    from models.recommender import Recommender
    from models.training import fit
    from models.transfer.wrapper import ModelWrapper

    started_at = datetime.now(UTC)
    torch.set_num_threads(job.budget.threads)
    recommender = Recommender(
        job.model,
        job.hyperparameters,
        pairs=_pairs(train),
        universe=(_column(users, USER), _column(items, ITEM)),
        seed=job.seed,
    )
    aligned = recommender.align(*_vectors(targets)) if targets else None
    wrapper = ModelWrapper(recommender, job.transfer, job.tap, aligned)
    holdout = Holdout.of(recommender, _pairs(valid))
    metric, k = parse_metric(job.budget.valid_metric)
    with track(f"{job.model} {job.arm} seed {job.seed}", job.budget.epochs) as done:
        fitted = fit(
            recommender,
            wrapper,
            lambda: holdout.score(recommender, metric, k),
            job.budget,
            job.seed,
            done,
        )
    inputs = {"train": train, "valid": valid, "users": users, "items": items}
    if targets is not None:
        inputs["targets"] = targets
    best = {name: value.cpu() for name, value in recommender.module.state_dict().items()}
    return Trained(
        job=job,
        rankings=write_parquet(
            "training", _rankings(recommender, holdout, job.k), inputs, job.identity()
        ),
        weights=write_bytes("weights", ".safetensors", save(best)),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        train_seconds=fitted.seconds,
        flow_run_id=flow_run.get_id(),
        started_at=started_at,
        finished_at=datetime.now(UTC),
    )


def _column(handle: Handle, column: str) -> list[str]:
    values: list[str] = read_parquet(handle, [column])[column].to_pylist()
    return values


def _pairs(handle: Handle) -> tuple[list[str], list[str]]:
    return _column(handle, USER), _column(handle, ITEM)


def _vectors(handle: Handle) -> tuple[list[str], NDArray[np.float32]]:
    """User ids and float32 (n, width) of a targets artifact."""
    table = read_parquet(handle)
    column = table[TARGET].combine_chunks()
    vectors = np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1)
    return table[USER].to_pylist(), vectors


def _rankings(recommender: "Recommender", holdout: "Holdout", k: int) -> pa.Table:
    """Both splits' rankings (schema `RANKINGS`) for every user with training interactions."""
    from models.ranking import rank

    users = np.unique(recommender.train_users)
    k = min(k, recommender.n_items - 1)
    return pa.concat_tables(
        _ranking_table(recommender, split, users, *rank(recommender, users, seen, k))
        for split, seen in (("valid", holdout.seen), ("test", holdout.seen_or_held))
    )


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
