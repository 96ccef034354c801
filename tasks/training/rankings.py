"""What a trained model offers, as tables: rankings of the catalogue, or predicted likes."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.schemas import ITEM, PREDICTIONS, RANKINGS, USER

if TYPE_CHECKING:
    from models.recommenders.recommender import Recommender
    from models.training.validation import Clicks, Holdout


def predictions(recommender: "Recommender", clicks: "Clicks") -> pa.Table:
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


def rankings(recommender: "Recommender", holdout: "Holdout", k: int) -> pa.Table:
    """Both splits' rankings (schema `RANKINGS`) for every user with training interactions."""
    from models.recommenders.top_k import rank

    users = np.unique(recommender.train_users)
    k = min(k, recommender.n_items - 1)
    valid = ranking_table(recommender, "valid", users, *rank(recommender, users, holdout.seen, k))
    recommender.extend_history(*holdout.newest_last)
    test = ranking_table(
        recommender, "test", users, *rank(recommender, users, holdout.seen_or_held, k)
    )
    return pa.concat_tables((valid, test))


def ranking_table(
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
