"""A map of profiles: embeddings in two dimensions, and the favourite genre of each subject."""

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
"""Fewer have no meaningful neighbourhoods; their principal components are shown."""


def sample(n: int) -> NDArray[np.int64]:
    """Draw from `n` subjects: all, or a seeded sample; int64, ascending."""
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(SEED).choice(n, MOST_POINTS, replace=False))


def method(n: int) -> str:
    """The projection of `n` embeddings to a plane."""
    return "umap" if n >= FEWEST_FOR_UMAP else "pca"


def project(embeddings: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Project embeddings, float32 (n, d), to a plane, float32 (n, 2); equal input, equal bits.

    None where there are too few, all are equal, or UMAP cannot place one.
    """
    n, width = embeddings.shape
    if n < FEWEST_POINTS or width < 2 or not np.ptp(embeddings, axis=0).any():
        return None
    settings = Targets.model_validate(
        {"reduction": method(n), "seed": SEED, "scale": "global", "umap": {"min_dist": 0.3}}
    )
    try:
        return reduce(embeddings, 2, settings)
    except BadInput:
        return None  # A page without a map is better than no page.


def favourites(train: pa.Table, items: pa.Table) -> dict[str, str]:
    """Find every user's genre with most training interactions; ties go to the first by name."""
    if items[GENRES].null_count == items.num_rows:
        return {}
    place = pc.index_in(train[ITEM].combine_chunks(), items[ITEM].combine_chunks())
    lists = items[GENRES].combine_chunks().take(place)
    users = train[USER].combine_chunks().take(pc.list_parent_indices(lists))
    counted = (
        pa.table({USER: users, "genre": lists.flatten()})
        .group_by([USER, "genre"])
        .aggregate([([], "count_all")])
        .sort_by([("count_all", "ascending"), ("genre", "descending")])
    )
    return dict(zip(counted[USER].to_pylist(), counted["genre"].to_pylist(), strict=True))


def first_genres(items: pa.Table) -> dict[str, str]:
    """Map every item to its first genre, where one is known."""
    pairs = zip(items[ITEM].to_pylist(), items[GENRES].to_pylist(), strict=True)
    return {item: genres[0] for item, genres in pairs if genres}
