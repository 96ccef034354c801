"""Control arms: targets that hold no profile, to tell knowledge from regularisation.

If a shuffled or a random target helps as much as a profile, the loss regularises; if the history's
own SVD does, the profile says no more than the log.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.config import Targets
from models.errors import BadInput
from models.schemas import GENRES, ITEM, USER
from models.targets.reduction import standardise

Matrix = NDArray[np.float64]


def shuffled(targets: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The same targets, permuted among users (items): float32 (n, width)."""
    return targets[np.random.default_rng(seed).permutation(len(targets))]


def noise(targets: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Gaussian draws with the targets' mean and covariance: float32 (n, width)."""
    exact = targets.astype(np.float64)
    covariance = np.atleast_2d(np.cov(exact, rowvar=False))
    drawn = np.random.default_rng(seed).multivariate_normal(
        exact.mean(axis=0), covariance, size=len(exact), method="eigh"
    )
    return drawn.astype(np.float32)


def genre_histogram(
    train: pa.Table, items: pa.Table, key: str, subjects: list[str], width: int, config: Targets
) -> NDArray[np.float32]:
    """Shares of genres in each user's training history, or an item's own: float32 (n, width).

    Args:
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
        key: `USER` or `ITEM`.
        subjects: the users or items of the rows.
        width: columns.
        config: centring, scale and seed.

    Raises:
        BadInput: if no item that was interacted with has a genre.
    """
    places = pc.index_in(train[ITEM].combine_chunks(), items[ITEM].combine_chunks())
    genres = items[GENRES].combine_chunks().take(places)
    codes = pc.list_flatten(genres).dictionary_encode()
    if len(codes) == 0:
        raise BadInput(
            "training.arms: genre-histogram needs items with genres and there are none; set "
            "dataset.genres or remove the arm"
        )
    owners = train[key].combine_chunks().take(pc.list_parent_indices(genres))
    rows = _rows_of(owners, subjects)
    counts = np.zeros((len(subjects), len(codes.dictionary)))
    inside = rows >= 0
    np.add.at(counts, (rows[inside], np.asarray(codes.indices)[inside]), 1.0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return standardise(_to_width(shares, width, config.seed), config)


def history_svd(
    train: pa.Table, key: str, subjects: list[str], width: int, config: Targets
) -> NDArray[np.float32]:
    """Singular vectors of the training matrix times singular values: float32 (n, width).

    Left ones for users, right ones for items (`key`).
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    rows = _rows_of(train[key], subjects)
    other = ITEM if key == USER else USER
    others = pc.unique(train[other])
    columns = np.asarray(pc.index_in(train[other], others))
    inside = rows >= 0
    matrix = csr_matrix(
        (np.ones(int(inside.sum())), (rows[inside], columns[inside])),
        shape=(len(subjects), len(others)),
    )
    rank = min(width, min(matrix.shape) - 1)
    start = np.random.default_rng(config.seed).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix, k=rank, v0=start)
    strongest = np.argsort(-values)
    return standardise(
        _to_width(left[:, strongest] * values[strongest], width, config.seed), config
    )


def _rows_of(owners: pa.ChunkedArray | pa.Array, subjects: list[str]) -> NDArray[np.int64]:
    """Row of each owner in `subjects`: int64 (n,), -1 where it is not there."""
    found = pc.fill_null(pc.index_in(owners, pa.array(subjects, pa.string())), -1)
    return np.asarray(found, dtype=np.int64)


def _to_width(matrix: Matrix, width: int, seed: int) -> Matrix:
    """Principal components of a wider matrix; a narrower one is rotated into `width` columns.

    A rotation keeps all distances and spreads them over the whole layer.
    """
    columns = matrix.shape[1]
    if columns > width:
        from sklearn.decomposition import PCA

        return np.asarray(PCA(width, random_state=seed).fit_transform(matrix))
    square = np.random.default_rng(seed).standard_normal((width, width))
    rotation = np.linalg.qr(square)[0][:columns]
    return np.asarray(matrix @ rotation)
