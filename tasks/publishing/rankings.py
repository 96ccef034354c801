"""Rankings of the catalogue by a trained model: challenger and champion on the same candidates."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Bools, Ints
from models.dataset.splitting import pairs_of
from models.schemas import ITEM, TIMESTAMP, USER
from tasks.storage.artifacts import Handle, read_parquet
from tasks.training.model_tables import ranking_table

if TYPE_CHECKING:
    import torch

    from models.publishing.foretelling import Foretold
    from models.recommenders.recommender import Recommender
    from models.recommenders.top_k import Scores

_AT_ONCE = 1024
SPLIT = "test"
"""What its rankings are called."""


def rank_for(
    recommender: "Recommender",
    users: pa.Array,
    catalogue: pa.Array,
    known: pa.Table,
    excluded: pa.Table,
    k: int,
    new_items: "Foretold | None" = None,
    new_users: "Foretold | None" = None,
) -> pa.Table:
    """The best items for those of `users`, string (n,), that the model has learnt of.

    Of the `catalogue`, what the model has never met is never ranked, nor what is `excluded` (user
    and item). `known`, schema `INTERACTIONS`, is all that may be known of the users: a sequential
    model is given what it did not train on, oldest first. The scores of `new_items` and `new_users`
    are foretold; where there are new users, they are ranked for instead. Returns the schema
    `RANKINGS`, lists of `k`, one row per user in the order of internal ids.
    """
    from models.recommenders.top_k import Seen, rank

    ids = recommender.user_ids(users)
    is_ranked = np.isin(ids, new_users.rows if new_users else recommender.train_users)
    trained = np.unique(ids[is_ranked])
    later = _pairs(recommender, known.sort_by(TIMESTAMP))
    n = recommender.n_items
    learnt = recommender.train_users * n + recommender.train_items
    is_new = ~np.isin(later[:, 0] * n + later[:, 1], learnt)
    recommender.extend_history(*later[is_new].T)
    candidates = recommender.item_ids(catalogue)
    strange = np.setdiff1d(np.arange(n), candidates)
    hidden = _pairs(recommender, excluded)
    seen = Seen(
        np.concatenate((hidden[:, 0], np.repeat(trained, len(strange)))),
        np.concatenate((hidden[:, 1], np.tile(strange, len(trained)))),
        recommender.n_users,
    )
    scores = _scores(recommender, new_items, new_users)
    [ranked] = rank(recommender, trained, [seen], min(k, n - 1), scores)
    return ranking_table(recommender, SPLIT, trained, *ranked)


def _scores(
    recommender: "Recommender", new_items: "Foretold | None", new_users: "Foretold | None"
) -> "Scores":
    """The recommender's scores, those of new items and new users foretold."""
    import torch

    def known(block: "torch.Tensor") -> "torch.Tensor":
        scores = recommender.scores(block).float().clone()
        if new_items is not None:
            weights = torch.from_numpy(new_items.weights).to(scores)
            scores[:, new_items.rows] = scores[:, new_items.known] @ weights.T
        return scores

    if new_users is None:
        return known
    recommender.module.eval()
    made = torch.zeros(len(new_users.rows), recommender.n_items)
    for start in range(0, len(new_users.known), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        block = torch.from_numpy(new_users.known[some]).to(recommender.device)
        made += torch.from_numpy(new_users.weights[:, some]) @ known(block).cpu()
    return lambda block: made[np.searchsorted(new_users.rows, block.cpu())]


def overlap(held: pa.Table, learnt: list[Handle]) -> Bools:
    """Mark the held-out pairs that are among those that a model has learnt from: bool (n,)."""
    pairs = [pairs_of(read_parquet(handle, [USER, ITEM])) for handle in learnt]
    return np.asarray(pc.is_in(pairs_of(held), pa.concat_arrays(pairs)))


def _pairs(recommender: "Recommender", table: pa.Table) -> Ints:
    """Pairs of internal ids, of users and items that the model has learnt of: int64 (n, 2)."""
    users = recommender.user_ids(table[USER])
    items = recommender.item_ids(table[ITEM])
    return np.stack((users, items), axis=1)[(users > 0) & (items > 0)]
