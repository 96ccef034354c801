"""A trained model put back together, to rank the catalogue for its users.

Challenger and champion go through the same lines, so that they are ranked on the same candidates.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.config import Job
from models.schemas import ITEM, TIMESTAMP, USER
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.inputs import Inputs, log_of, universe_of
from tasks.training.rankings import ranking_table

if TYPE_CHECKING:
    from models.recommenders.recommender import Recommender

SPLIT = "test"
"""What its rankings are called."""


@dataclass(frozen=True)
class Served:
    """All that a trained model is rebuilt from: nothing in it is executed when it is loaded.

    Attributes:
        job: what was trained.
        weights: safetensors.
        train: what it learnt from, schema `INTERACTIONS`.
        users, items: all that there were, schemas `USERS` and `ITEMS`.
    """

    job: Job
    weights: Handle
    train: Handle
    users: Handle
    items: Handle

    def inputs(self) -> Inputs:
        """The same for a training to start from."""
        return Inputs(self.train, self.train, self.users, self.items, {})


def rebuilt(served: Served) -> "Recommender":
    """The recommender with its trained weights.

    Raises:
        MissingArtifact: if a file is gone or was altered.
    """
    import torch
    from safetensors.torch import load_file

    from models.recommenders.recommender import Recommender

    torch.set_num_threads(served.job.budget.threads)
    job = served.job
    log = log_of(served.train, job.like_from)
    universe = universe_of(served.inputs())
    recommender = Recommender(job.model, job.hyperparameters, log, universe, job.seed)
    recommender.restore(load_file(served.weights.verify()))
    return recommender


def rank_for(
    recommender: "Recommender",
    users: pa.Array,
    catalogue: pa.Array,
    known: pa.Table,
    excluded: pa.Table,
    k: int,
) -> pa.Table:
    """The best items for those of `users` that the model has learnt of.

    Args:
        recommender: from `rebuilt`; a sequential model's histories are extended.
        users: raw ids, string (n,).
        catalogue: raw ids of the candidates; those that the model has never met are never ranked.
        known: schema `INTERACTIONS`, all that may be known of the users; a sequential model is
            given what it did not train on, oldest first.
        excluded: user and item, never ranked.
        k: length of the lists.

    Returns:
        Schema `RANKINGS`, one row per user in the order of internal ids.
    """
    from models.recommenders.top_k import Seen, rank

    ids = _ids(recommender.user_tokens, users)
    trained = np.unique(ids[np.isin(ids, recommender.train_users)])
    later_users, later_items = _not_trained(recommender, known.sort_by(TIMESTAMP))
    recommender.extend_history(later_users, later_items)
    hidden = _pairs(recommender, excluded)
    strange = np.flatnonzero(
        ~np.isin(np.arange(recommender.n_items), _ids(recommender.item_tokens, catalogue))
    )
    seen = Seen(
        np.concatenate((hidden[0], np.repeat(trained, len(strange)))),
        np.concatenate((hidden[1], np.tile(strange, len(trained)))),
        recommender.n_users,
    )
    ranked = rank(recommender, trained, seen, min(k, recommender.n_items - 1))
    return ranking_table(recommender, SPLIT, trained, *ranked)


def overlap(held: pa.Table, learnt: list[Handle]) -> NDArray[np.bool_]:
    """Which held-out pairs are among those that a model has learnt from: bool (n,)."""
    pairs = [_joined(read_parquet(handle, [USER, ITEM])) for handle in learnt]
    return np.asarray(pc.is_in(_joined(held), pa.concat_arrays(pairs)))


def _joined(table: pa.Table) -> pa.Array:
    # No atomic file can hold a tab in an id, and drops that do are refused.
    texts = pc.binary_join_element_wise(table[USER], table[ITEM], "\t")
    return pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())


def _ids(tokens: NDArray[np.object_], wanted: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Internal ids, of known tokens alone: int64 (m,). Internal id 0 is padding, no token."""
    found = pc.index_in(wanted, pa.array(tokens[1:], pa.string())).drop_null()
    return np.asarray(found, dtype=np.int64) + 1


def _pairs(
    recommender: "Recommender", table: pa.Table
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of internal ids, of users and items that the model knows."""
    users, items = (
        pc.index_in(table[column], pa.array(tokens[1:], pa.string()))
        for column, tokens in ((USER, recommender.user_tokens), (ITEM, recommender.item_tokens))
    )
    both = pc.and_(pc.is_valid(users), pc.is_valid(items))
    found = (np.asarray(of.filter(both), dtype=np.int64) + 1 for of in (users, items))
    of_users, of_items = found
    return of_users, of_items


def _not_trained(
    recommender: "Recommender", known: pa.Table
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Known pairs that the model did not train on, in the order given."""
    users, items = _pairs(recommender, known)
    n = recommender.n_items
    trained = recommender.train_users * n + recommender.train_items
    new = ~np.isin(users * n + items, trained)
    return users[new], items[new]
