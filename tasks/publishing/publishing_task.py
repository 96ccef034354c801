"""Stages *recommendations* and *publishing*: a new champion's lists, vectors and version."""

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from prefect.logging import get_run_logger

from models.config import SIDES, Nightly, Side
from models.embeddings.text_batches import to_matrix, to_table
from models.evaluation.slices import HEAD_SHARE
from models.schemas import EMBEDDING, ITEM, KEYS, RECOMMENDATIONS, USER, VECTOR
from tasks.dataset.outputs import Interactions, Splits
from tasks.execution.cache_key import cache_key
from tasks.execution.stage import always, stage
from tasks.publishing.manifest import (
    INTERACTIONS,
    ITEMS,
    JUDGED,
    POPULAR,
    TRAIN,
    USERS,
    VALID,
    WEIGHTS,
    Manifest,
)
from tasks.publishing.manifest import RECOMMENDATIONS as LISTS
from tasks.publishing.outputs import Recommended, Serving
from tasks.publishing.rankings import rank_for
from tasks.publishing.versions import Overtaken, prune, publish
from tasks.storage.artifacts import Handle, read_parquet, write_parquet
from tasks.storage.sql_scripts import query
from tasks.training.model_tables import Inputs
from tasks.training.outputs import Trained
from tasks.training.worker import trained_model

if TYPE_CHECKING:
    from models.publishing.foretelling import Foretold
    from models.publishing.vector_export import Vectors
    from models.recommenders.recommender import Recommender

_NO_VECTORS = "none: the model has no vector of its own for each, or it depends on the batch"


@stage("recommendations", version=2)
def recommendations(
    trained: Trained,
    train: Handle,
    data: Interactions,
    embeddings: dict[Side, Handle],
    k: int,
) -> Recommended:
    """Rank the catalogue for every known user, and read the model's vectors.

    Nothing that is known of a user is recommended again, the holdout included. Users that the
    model has not learnt of are ranked for by what their texts foretell, or by popularity.

    `train`, schema `INTERACTIONS`, is what the model has learnt of `data`; `embeddings` has
    `vectors("embedding", width, key)` of the sides with texts.
    """
    inputs = {"weights": trained.kept_weights, "train": train, "interactions": data.interactions}
    config = {"job": trained.job.identity(), "k": k}
    read = Inputs(train, train, data.users, data.items, {})
    recommender = trained_model(trained.job, trained.kept_weights, read)
    new_users, new_items = (_foretold(recommender, trained, side, embeddings) for side in SIDES)
    found, product = _vectors_of(recommender, trained, new_items)
    known, items = read_parquet(data.interactions), read_parquet(data.items)
    users = read_parquet(data.users)
    everyone, catalogue = users[USER].combine_chunks(), pc.unique(items[ITEM])
    given = (recommender, everyone, catalogue, known, known, k, new_items)
    ranked = {"model": rank_for(*given)}
    if new_users is not None:
        ranked["profile"] = rank_for(*given, new_users)
    rankings = pa.concat_tables(
        table.append_column("source", pa.repeat(source, len(table)))
        for source, table in ranked.items()
    )
    tables = {"users": users, "items": items, "interactions": known, "rankings": rankings}
    tables["popular"] = query("publishing/popular", tables)
    tables["lists"] = query("publishing/lists", tables, k=k).cast(RECOMMENDATIONS)
    nobody = {"users": pa.table({USER: [""]}), "rankings": rankings.slice(0, 0)}
    strangers = query("publishing/lists", tables | nobody, k=k).cast(RECOMMENDATIONS)
    [serving] = query("publishing/serving", tables, head=HEAD_SHARE).to_pylist()
    return Recommended(
        recommendations=write_parquet("recommendations", tables["lists"], inputs, config),
        popular=write_parquet("popular", strangers, inputs, config),
        vectors={
            side: write_parquet("vectors", _table(recommender, side, own), inputs, config)
            for side, own in found.items()
        },
        meaning={side: found[side].meaning if side in found else _NO_VECTORS for side in SIDES},
        scored_by_product=product,
        serving=Serving.model_validate(serving),
    )


def _foretold(
    recommender: "Recommender", trained: Trained, side: Side, embeddings: dict[Side, Handle]
) -> "Foretold | None":
    """What texts foretell of those that the model has not learnt of, unless it does so itself."""
    from models.publishing.foretelling import foretold

    if side not in embeddings:
        return None
    n = recommender.n_users if side == "users" else recommender.n_items
    taught = recommender.train_users if side == "users" else recommender.train_items
    wanted = np.setdiff1d(np.arange(1, n), taught)
    own = recommender.entry.takes_embeddings and trained.job.transfer is not None
    if not len(wanted) or (own and side == "items"):
        return None
    table = read_parquet(embeddings[side])
    given = recommender.align(table[KEYS[side]].to_pylist(), to_matrix(table[EMBEDDING]), side)
    return foretold(given.vectors.numpy(), given.known.numpy(), np.unique(taught), wanted)


def _vectors_of(
    recommender: "Recommender", trained: Trained, new_items: "Foretold | None"
) -> tuple[dict[Side, "Vectors"], bool]:
    """Each side's vectors where there are any, and whether scores are their dot products."""
    from models.publishing.vector_export import scored_by_product, vectors

    taps = trained.job.taps
    every = {side: vectors(recommender, side, taps.get(side)) for side in SIDES}
    found = {side: own for side, own in every.items() if own is not None}
    both = len(found) == len(SIDES)
    product = both and scored_by_product(recommender, found["users"], found["items"])
    if new_items is not None and "items" in found:  # all items have a vector, in order from id 1
        matrix = np.pad(found["items"].matrix, ((1, 0), (0, 0)))
        found["items"].matrix[new_items.rows - 1] = new_items.weights @ matrix[new_items.known]
    return found, product


def _table(recommender: "Recommender", side: Side, found: "Vectors") -> pa.Table:
    """Schema `vectors`, sorted by id."""
    ids = pa.array(recommender.tokens[KEYS[side]][found.ids], pa.string())
    return to_table(ids, VECTOR, found.matrix, KEYS[side]).sort_by(KEYS[side])


def version_of(
    at: datetime, trained: Trained, data: Interactions, champion: str | None, rule: Nightly
) -> str:
    """Name a version: `2026-11-24-3f2a9c1b7d`, the night and ten digits of its content's digest."""
    content = {
        "weights": trained.kept_weights,
        "data": data,
        "job": trained.job,
        "previous": champion,
        "served": [rule.serve_from, rule.k],
    }
    return f"{at:%Y-%m-%d}-{cache_key('version', 2, content)[-10:]}"


@always("publishing")
def publishing(
    manifest: Manifest, sources: dict[str, Handle], keep: int, swap: bool
) -> Manifest | None:
    """Write a version of the published set and make it current (`tasks.publishing.manifest`).

    It always runs: another version may have become current since. Without `swap`, a version is
    only written, to wait for approval. `sources` are its files by name.

    Returns:
        The manifest with its files; None if the version that it was judged against is no longer
        current, as after a rollback in the meantime: then nothing is changed.
    """
    try:
        published = publish(manifest, sources, swap)
    except Overtaken as error:
        get_run_logger().warning("Not published: %s", error)
        return None
    try:
        removed = prune(manifest.experiment, keep)
    except Exception:  # the version is current: nothing after it may fail the night
        removed = []
        get_run_logger().exception("Old versions were not removed")
    verb = "is current" if swap else "waits for approval"
    gone = f"; removed {', '.join(removed)}" if removed else ""
    get_run_logger().info("%s %s%s", published.folder, verb, gone)
    return published


def files_of(
    served: Trained, judged: Trained, parts: Splits, data: Interactions, offered: Recommended
) -> dict[str, Handle]:
    """List a version's files by name: lists, vectors, both models and what they learnt from."""
    return {
        LISTS: offered.recommendations,
        POPULAR: offered.popular,
        **{f"{side}.parquet": handle for side, handle in offered.vectors.items()},
        WEIGHTS: served.kept_weights,
        JUDGED: judged.kept_weights,
        TRAIN: parts.train,
        VALID: parts.valid,
        INTERACTIONS: data.interactions,
        USERS: data.users,
        ITEMS: data.items,
    }
