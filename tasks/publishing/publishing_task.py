"""Stages *recommendations* and *publishing*: a new champion's lists, vectors and version."""

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect.logging import get_run_logger

from models.config import SIDES, Side
from models.schemas import ITEM, KEYS, RECOMMENDATIONS, USER, VECTOR, vectors
from tasks.dataset.outputs import Interactions, Splits
from tasks.execution.cache_key import cache_key
from tasks.execution.stage import always, stage
from tasks.publishing.manifest import ITEMS, TRAIN, USERS, VALID, WEIGHTS, Manifest
from tasks.publishing.manifest import RECOMMENDATIONS as LISTS
from tasks.publishing.outputs import Recommended
from tasks.publishing.rankings import rank_for
from tasks.publishing.versions import Overtaken, prune, publish
from tasks.storage.artifacts import Handle, read_parquet, write_parquet
from tasks.training.model_tables import Inputs
from tasks.training.outputs import Trained
from tasks.training.worker import trained_model

if TYPE_CHECKING:
    from models.publishing.vector_export import Vectors
    from models.recommenders.recommender import Recommender

_NO_VECTORS = "none: the model has no vector of its own for each, or it depends on the batch"


@stage("recommendations", version=1)
def recommendations(trained: Trained, parts: Splits, data: Interactions, k: int) -> Recommended:
    """Rank the catalogue for every user that the model has learnt of, and read its vectors.

    Nothing that is known of a user is recommended again, the holdout included.
    """
    inputs = {"weights": trained.weights, "train": parts.train, "interactions": data.interactions}
    config = {"job": trained.job.identity(), "k": k}
    read = Inputs(parts.train, parts.valid, data.users, data.items, {})
    recommender = trained_model(trained.job, trained.weights, read)
    found, product = _vectors_of(recommender, trained)
    known = read_parquet(data.interactions)
    rankings = rank_for(
        recommender,
        read_parquet(data.users)[USER].combine_chunks(),
        pc.unique(read_parquet(data.items, [ITEM])[ITEM]),
        known,
        known,
        k,
    )
    lists = _one_row_each(rankings)
    return Recommended(
        recommendations=write_parquet("recommendations", lists, inputs, config),
        vectors={
            side: write_parquet("vectors", _table(recommender, side, own), inputs, config)
            for side, own in found.items()
        },
        meaning={side: found[side].meaning if side in found else _NO_VECTORS for side in SIDES},
        scored_by_product=product,
        users_known=data.users.rows,
        users_served=rankings.num_rows,
    )


def _vectors_of(recommender: "Recommender", trained: Trained) -> tuple[dict[Side, "Vectors"], bool]:
    """Each side's vectors where there are any, and whether scores are their dot products."""
    from models.publishing.vector_export import scored_by_product, vectors

    taps = trained.job.taps
    every = {side: vectors(recommender, side, taps.get(side)) for side in SIDES}
    found = {side: own for side, own in every.items() if own is not None}
    both = len(found) == len(SIDES)
    return found, both and scored_by_product(recommender, found["users"], found["items"])


def _one_row_each(rankings: pa.Table) -> pa.Table:
    """Schema `RECOMMENDATIONS` of schema `RANKINGS`."""
    rankings = rankings.sort_by(USER)
    lists = rankings["items"].combine_chunks()
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    starts = np.repeat(lengths.cumsum() - lengths, lengths)
    return pa.table(
        {
            USER: rankings[USER].take(pc.list_parent_indices(lists)),
            "rank": pa.array(np.arange(lengths.sum()) - starts + 1, pa.int32()),
            ITEM: lists.flatten(),
            "score": rankings["scores"].combine_chunks().flatten(),
        },
        schema=RECOMMENDATIONS,
    )


def _table(recommender: "Recommender", side: Side, found: "Vectors") -> pa.Table:
    """Schema `vectors`, sorted by id."""
    tokens = recommender.user_tokens if side == "users" else recommender.item_tokens
    schema = vectors(VECTOR, found.matrix.shape[1], KEYS[side])
    flat = pa.array(np.ascontiguousarray(found.matrix).reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(flat, found.matrix.shape[1])
    ids = pa.array(tokens[found.ids], pa.string())
    return pa.table([ids, rows], names=schema.names).cast(schema).sort_by(KEYS[side])


def version_of(at: datetime, trained: Trained, data: Interactions, champion: str | None) -> str:
    """Name a version: `2026-11-24-3f2a9c1b7d`, the night and ten digits of its content's digest."""
    content = {"weights": trained.weights, "data": data, "job": trained.job, "previous": champion}
    return f"{at:%Y-%m-%d}-{cache_key('version', 1, content)[-10:]}"


@always("publishing")
def publishing(
    manifest: Manifest,
    trained: Trained,
    parts: Splits,
    data: Interactions,
    recommended: Recommended,
    keep: int,
) -> Manifest | None:
    """Write a version of the published set and make it current (`tasks.publishing.manifest`).

    It always runs: another version may have become current since.

    Returns:
        The manifest with its files; None if the version that it was judged against is no longer
        current, as after a rollback in the meantime: then nothing is changed.
    """
    sources: dict[str, Handle] = {
        LISTS: recommended.recommendations,
        **{f"{side}.parquet": handle for side, handle in recommended.vectors.items()},
        WEIGHTS: trained.weights,
        TRAIN: parts.train,
        VALID: parts.valid,
        USERS: data.users,
        ITEMS: data.items,
    }
    try:
        published = publish(manifest, sources)
    except Overtaken as error:
        get_run_logger().warning("Not published: %s", error)
        return None
    try:
        removed = prune(manifest.experiment, keep)
    except Exception:  # the version is current: nothing after it may fail the night
        removed = []
        get_run_logger().exception("Old versions were not removed")
    get_run_logger().info(
        "%s is current%s", published.folder, f"; removed {', '.join(removed)}" if removed else ""
    )
    return published
