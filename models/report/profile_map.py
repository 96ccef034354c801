"""A map of profiles: embeddings in two dimensions, and what each subject likes best."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.config import Targets
from models.errors import BadInput
from models.schemas import GENRES, ITEM, USER
from models.targets.reduction import reduce

SEED = 42
MOST_POINTS = 5000
"""More dots than this hide each other and make the page slow."""
FEWEST_POINTS = 3
FEWEST_FOR_UMAP = 100
"""Fewer have no neighbourhoods worth a name; their principal components are shown."""


def sample(n: int) -> NDArray[np.int64]:
    """Which of `n` subjects are drawn: all, or a seeded sample; int64, ascending."""
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, MOST_POINTS, replace=False))


def method(n: int) -> str:
    """How `n` embeddings are put on a plane."""
    return "umap" if n >= FEWEST_FOR_UMAP else "pca"


def flat(embeddings: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Embeddings on a plane; equal input gives equal bits.

    Args:
        embeddings: float32 (n, d).

    Returns:
        float32 (n, 2); None where there are too few, all are equal, or UMAP cannot place one.
    """
    n, width = embeddings.shape
    if n < FEWEST_POINTS or width < 2 or not np.ptp(embeddings, axis=0).any():
        return None
    umap = {"min_dist": 0.3}
    settings = {"reduction": method(n), "seed": SEED, "scale": "global", "umap": umap}
    try:
        return reduce(embeddings, 2, Targets.model_validate(settings))
    except BadInput:
        return None  # A page without a map is better than no page.


def favourites(train: pa.Table, items: pa.Table) -> dict[str, str]:
    """Every user's genre with most training interactions; of equals the first by name.

    Args:
        train: `user_id` and `item_id` of the training part.
        items: schema `ITEMS`.
    """
    if items[GENRES].null_count == items.num_rows:
        return {}
    place = pc.index_in(train[ITEM].combine_chunks(), items[ITEM].combine_chunks())
    lists = items[GENRES].combine_chunks().take(place)
    counted = (
        pa.table(
            {
                USER: train[USER].combine_chunks().take(pc.list_parent_indices(lists)),
                "genre": lists.flatten(),
            }
        )
        .group_by([USER, "genre"])
        .aggregate([([], "count_all")])
        .sort_by([("count_all", "ascending"), ("genre", "descending")])
    )
    return dict(zip(counted[USER].to_pylist(), counted["genre"].to_pylist(), strict=True))


def first_genres(items: pa.Table) -> dict[str, str]:
    """Every item's first genre, where one is known."""
    pairs: Sequence[tuple[str, list[str] | None]] = list(
        zip(items[ITEM].to_pylist(), items[GENRES].to_pylist(), strict=True)
    )
    return {item: genres[0] for item, genres in pairs if genres}
