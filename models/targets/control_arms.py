"""Control arms: targets that hold no profile, to tell knowledge from regularisation.

If a shuffled or a random target helps as much as a profile, the loss regularises; if the history's
own SVD does, the profile says no more than the log. Each function is named as its arm in
`models.config.arms.ARMS`, with underscores.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.config import ArmName, Targets
from models.errors import BadInput
from models.schemas import GENRES, ITEM, USER
from models.targets.reduction import reduce


@dataclass(frozen=True)
class ControlInputs:
    """What a control's targets can be made of."""

    targets: NDArray[np.float32]
    """float32 (n, width), of the profiles."""
    key: str
    """`USER` or `ITEM`."""
    subjects: list[str]
    """The users or items of the rows, n."""
    train: pa.Table
    """Schema `INTERACTIONS`."""
    items: pa.Table
    """Schema `ITEMS`."""
    seed: int
    """The training's, with which random targets are drawn anew."""
    config: Targets
    """Centring, scale, and the seed of what is the same in all trainings."""

    @property
    def width(self) -> int:
        """Columns of the targets."""
        return int(self.targets.shape[1])


def control_targets(arm: ArmName, inputs: ControlInputs) -> NDArray[np.float32]:
    """Make the targets of a control arm, float32 (n, width), by the function of its name.

    Raises:
        BadInput: if the data has nothing to make the control of.
    """
    made: NDArray[np.float32] = globals()[arm.replace("-", "_")](inputs)
    return made


def shuffled(inputs: ControlInputs) -> NDArray[np.float32]:
    """Permute the profiles' targets among users (items): float32 (n, width)."""
    return inputs.targets[np.random.default_rng(inputs.seed).permutation(len(inputs.targets))]


def noise(inputs: ControlInputs) -> NDArray[np.float32]:
    """Draw from a Gaussian with the targets' mean and covariance: float32 (n, width)."""
    exact = inputs.targets.astype(np.float64)
    covariance = np.atleast_2d(np.cov(exact, rowvar=False))
    drawn = np.random.default_rng(inputs.seed).multivariate_normal(
        exact.mean(axis=0), covariance, size=len(exact), method="eigh"
    )
    return drawn.astype(np.float32)


def genre_histogram(inputs: ControlInputs) -> NDArray[np.float32]:
    """Shares of genres in each user's training history, or an item's own: float32 (n, width).

    Raises:
        BadInput: if no item that was interacted with has a genre.
    """
    train, items = inputs.train, inputs.items
    places = pc.index_in(train[ITEM].combine_chunks(), items[ITEM].combine_chunks())
    genres = items[GENRES].combine_chunks().take(places)
    codes = pc.list_flatten(genres).dictionary_encode()
    if len(codes) == 0:
        raise BadInput(
            "training.arms: genre-histogram needs items with genres and there are none. Set "
            "dataset.genres, or remove the arm."
        )
    owners = train[inputs.key].combine_chunks().take(pc.list_parent_indices(genres))
    rows = _rows_of(owners, inputs.subjects)
    counts = np.zeros((len(inputs.subjects), len(codes.dictionary)))
    inside = rows >= 0
    np.add.at(counts, (rows[inside], np.asarray(codes.indices)[inside]), 1.0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return _standardised(shares, inputs)


def history_svd(inputs: ControlInputs) -> NDArray[np.float32]:
    """Singular vectors of the training matrix times singular values: float32 (n, width).

    Left ones for users, right ones for items.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    train = inputs.train
    rows = _rows_of(train[inputs.key], inputs.subjects)
    other = ITEM if inputs.key == USER else USER
    others = pc.unique(train[other])
    columns = np.asarray(pc.index_in(train[other], others))
    inside = rows >= 0
    matrix = csr_matrix(
        (np.ones(int(inside.sum())), (rows[inside], columns[inside])),
        shape=(len(inputs.subjects), len(others)),
    )
    rank = min(inputs.width, min(matrix.shape) - 1)
    start = np.random.default_rng(inputs.config.seed).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix, k=rank, v0=start)
    strongest = np.argsort(-values)
    return _standardised(left[:, strongest] * values[strongest], inputs)


def _rows_of(owners: pa.ChunkedArray | pa.Array, subjects: list[str]) -> NDArray[np.int64]:
    """Row of each owner in `subjects`: int64 (n,), -1 where it is not there."""
    found = pc.fill_null(pc.index_in(owners, pa.array(subjects, pa.string())), -1)
    return np.asarray(found, dtype=np.int64)


def _standardised(matrix: NDArray[np.float64], inputs: ControlInputs) -> NDArray[np.float32]:
    """Centre and scale `width` principal components; a narrower matrix is rotated into as many.

    A rotation keeps all distances and spreads them over the whole layer.
    """
    columns, width = matrix.shape[1], inputs.width
    reduction = "pca" if columns > width else "none"
    if columns <= width:
        square = np.random.default_rng(inputs.config.seed).standard_normal((width, width))
        matrix = matrix @ np.linalg.qr(square)[0][:columns]
    config = inputs.config.model_copy(update={"reduction": reduction})
    return reduce(matrix, width, config)
