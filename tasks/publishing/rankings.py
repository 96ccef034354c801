"""Rankings of the catalogue by a trained model: challenger and champion on the same candidates."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.schemas import ITEM, TIMESTAMP, USER
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.model_tables import ranking_table

if TYPE_CHECKING:
    from models.recommenders.recommender import Recommender

SPLIT = "test"
"""What its rankings are called."""


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
        recommender: a trained one; a sequential model's histories are extended.
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
