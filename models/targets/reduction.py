"""Embeddings into targets: fit a reducer on all of them or on a sample, then reduce in batches."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrow import Floats, Ints, Singles
from models.config import REDUCTIONS, Targets
from models.config.plugins import is_path
from models.errors import BadInput
from models.targets.umap_state import estimator, place

Source = Callable[[], Iterator[NDArray[Any]]]
"""Starts an iteration over all embeddings in batches, float (n, d), always the same ones."""

# A coordinate whose spread is below this share of the largest one's is rounding noise.
_NOISE = 1e-6


@dataclass(frozen=True)
class Reducer:
    """Maps embeddings to targets with the parameters of the fit, so that targets are comparable.

    Attributes:
        centre: float64 (width,), subtracted.
        scale: float64 () or (width,), divided by.
        mean: float64 (d,), of the embeddings, for principal components.
        components: float64 (width, d), for principal components.
        manifold: a fitted `umap.UMAP`.
        settings: what it was fitted with, JSON-ready.
    """

    centre: Floats
    scale: Floats
    mean: Floats | None = None
    components: Floats | None = None
    manifold: Any = None
    settings: dict[str, Any] = field(default_factory=dict)

    def transform(self, embeddings: NDArray[Any]) -> Singles:
        """Reduce embeddings that the fit did not see.

        UMAP places a point at the weighted mean of its nearest neighbours in the fit.

        Args:
            embeddings: float (n, d).

        Returns:
            float32 (n, width), NaN where UMAP finds no neighbour.
        """
        coordinates = embeddings.astype(np.float64)
        if self.components is not None and self.mean is not None:
            coordinates = (coordinates - self.mean) @ self.components.T
        elif self.manifold is not None:
            with _threads_kept(), warnings.catch_warnings():
                warnings.filterwarnings("ignore")
                coordinates = place(self.manifold, embeddings)
        return self.scaled(coordinates)

    def scaled(self, coordinates: Floats) -> Singles:
        """Centre and scale coordinates: float64 (n, width) to float32."""
        return np.ascontiguousarray((coordinates - self.centre) / self.scale, dtype=np.float32)


@dataclass(frozen=True)
class Fitted:
    """A reducer, and the targets that UMAP's own fit gave to its sample.

    Attributes:
        reducer: reduces all other embeddings.
        sample: int64, ascending: the rows that UMAP was fitted on; none for other reductions.
        placed: float32 (len(sample), width): their targets.
    """

    reducer: Reducer
    sample: Ints
    placed: Singles

    def targets(self, batch: NDArray[Any], start: int = 0) -> Singles:
        """Reduce the embeddings from row `start` on, float (n, d), to float32 (n, width).

        Raises:
            BadInput: if UMAP finds no neighbour for some.
        """
        first, last = np.searchsorted(self.sample, (start, start + len(batch)))
        made = np.empty((len(batch), len(self.reducer.centre)), np.float32)
        is_other = np.ones(len(batch), bool)
        is_other[self.sample[first:last] - start] = False
        made[~is_other] = self.placed[first:last]
        if is_other.any():
            made[is_other] = self.reducer.transform(batch[is_other])
        _require_neighbours(made)
        return made


def reduce(embeddings: NDArray[Any], width: int | None, config: Targets) -> Singles:
    """Make targets of embeddings that are in memory, float32 (n, width); see `fit`.

    Example:
        >>> reduce(np.array([[0, 0], [3, 4], [6, 8]], "f4"), 1, Targets(reduction="pca"))
        array([[-1.2247449], [ 0. ], [ 1.2247449]], dtype=float32)
    """
    return fit(lambda: iter([embeddings]), len(embeddings), width, config).targets(embeddings)


def standardised(matrix: Floats, width: int, config: Targets) -> Singles:
    """Centre and scale `width` principal components; a narrower matrix is rotated into as many.

    A rotation keeps all distances and spreads them over the whole layer. Without a reduction, a
    wider matrix stays whole: what takes whole embeddings takes a whole control, too.
    """
    columns = matrix.shape[1]
    width = max(width, columns) if config.reduction == "none" else width
    if columns <= width:
        square = np.random.default_rng(config.seed).standard_normal((width, width))
        matrix = matrix @ np.linalg.qr(square)[0][:columns]
    reduction = "pca" if columns > width else "none"
    return reduce(matrix, width, config.model_copy(update={"reduction": reduction}))


def fit(source: Source, rows: int, width: int | None, config: Targets) -> Fitted:
    """Fit a reduction to `width` coordinates, their centre and their scale.

    Principal components come from all embeddings, in one pass. UMAP is fitted on at most
    `umap.fit_sample` of them, drawn by the seed. Equal input, settings and seed give equal bits.

    Args:
        source: all embeddings, of users or items.
        rows: how many they are.
        width: coordinates per target; None keeps all columns, where nothing is reduced.
        config: reduction, seed, centring and scale.

    Raises:
        BadInput: if all embeddings are equal, or there are too few users or dimensions for
            `width` coordinates.
    """
    sample, placed = np.empty(0, np.int64), np.empty((0, 1))
    parts: dict[str, Any] = {}
    if config.reduction == "none" or width is None:
        mean, variances = moments(source)
        columns = len(mean)
    elif config.reduction == "pca":
        parts["mean"], covariance = moments(source, covariance=True)
        columns = len(covariance)
        variances, parts["components"] = _principal(covariance, rows, width)
        mean = np.zeros(width)
    else:
        sample = np.arange(rows)
        if rows > config.umap.fit_sample and not is_path(config.reduction):
            rng = np.random.default_rng(config.seed)
            sample = np.sort(rng.choice(rows, config.umap.fit_sample, replace=False))
        embeddings = _rows(source, sample)
        columns = embeddings.shape[1]
        if is_path(config.reduction):
            placed = np.asarray(
                REDUCTIONS[str(config.reduction)](embeddings, width, config.seed), dtype=np.float64
            )
        else:
            placed, parts["manifold"] = _fit_umap(embeddings, width, config)
        mean, variances = placed.mean(axis=0), placed.var(axis=0)
    reducer = Reducer(
        mean if config.centre else np.zeros_like(mean),
        _scale(variances, config),
        **parts,
        settings=settings(config, width, columns),
    )
    return Fitted(reducer, sample, reducer.scaled(placed))


def settings(config: Targets, width: int | None, columns: int) -> dict[str, Any]:
    """List what decides a fit beside the embeddings: a reducer with other settings is of no use."""
    whole = config.reduction == "none"
    return {**config.identity(), "width": None if whole else width, "columns": columns}


def moments(source: Source, covariance: bool = False) -> tuple[Floats, Floats]:
    """Accumulate mean, float64 (d,), and variances, (d,), or covariance, (d, d), in one pass.

    Rows are taken relative to the first one, so that what all share costs no digits (Chan et al.
    1983, "Algorithms for computing the sample variance").

    Raises:
        BadInput: if all rows are equal.
    """
    n, first = 0, np.empty(0)
    total: Any = 0.0
    squares: Any = np.zeros(1)
    for batch in source():
        first = first if n else batch[:1].astype(np.float64)
        moved = batch - first
        total = total + moved.sum(axis=0)
        squares = squares + (moved.T @ moved if covariance else (moved**2).sum(axis=0))
        n += len(batch)
    if not squares.any():
        raise BadInput(_all_equal(n))
    mean = total / n
    return first[0] + mean, squares / n - (np.outer(mean, mean) if covariance else mean**2)


def _all_equal(n: int) -> str:
    return (
        f"targets: all {n} embeddings are equal, so they tell nobody apart. Check that the "
        "profiles' texts differ."
    )


def _narrower(most: int) -> str:
    """The fix: a layer takes targets of its own width only."""
    return (
        f"Set models.NAME.hyperparameters.embedding_size (MultiVAE: latent_dimension) to {most} or "
        "less, or use more users"
    )


def _principal(covariance: Floats, rows: int, width: int) -> tuple[Floats, Floats]:
    """Variances, (width,), and principal components, (width, d); signs as scikit-learn's."""
    most = min(rows, len(covariance))
    if width > most:
        raise BadInput(
            f"targets: {rows} users with {len(covariance)}-d embeddings have at most {most} "
            f"principal components, not {width} as the layer is wide. {_narrower(most)}."
        )
    values, vectors = np.linalg.eigh(covariance)
    components = vectors[:, ::-1][:, :width].T
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return np.maximum(values[::-1][:width], 0), np.ascontiguousarray(components * np.sign(largest))


def _rows(source: Source, wanted: Ints) -> NDArray[Any]:
    """The embeddings in the rows `wanted`, which ascend."""
    start, found = 0, list[NDArray[Any]]()
    for batch in source():
        first, last = np.searchsorted(wanted, (start, start + len(batch)))
        found.append(batch[wanted[first:last] - start])
        start += len(batch)
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)


def _fit_umap(embeddings: NDArray[Any], width: int, config: Targets) -> tuple[Floats, Any]:
    """UMAP (McInnes et al. 2018), one thread: float64 (n, width), and the fitted UMAP."""
    n, dimensions = embeddings.shape
    if n == 0 or not np.ptp(embeddings, axis=0).any():
        raise BadInput(_all_equal(n))
    if n < max(3, width + 1):
        fix = _narrower(n - 1) if n >= 3 else "Use more users, or set targets.reduction to pca"
        raise BadInput(
            f"targets: UMAP to {width} coordinates, as wide as the layer, needs at least "
            f"{max(3, width + 1)} users with a profile, not {n}. {fix}."
        )
    with _threads_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_neighbors is larger than the dataset")
        manifold = estimator(settings(config, width, dimensions), dimensions)
        coordinates = manifold.fit_transform(embeddings)
    _require_neighbours(coordinates)
    return np.asarray(coordinates, dtype=np.float64), manifold


def _require_neighbours(coordinates: NDArray[Any]) -> None:
    lost = int((~np.isfinite(coordinates).all(axis=1)).sum())
    if lost:
        raise BadInput(
            f"targets: UMAP found no neighbour for {lost} of {len(coordinates)} users. Set "
            "targets.umap.metric to euclidean, or targets.reduction to pca."
        )


def _scale(variances: Floats, config: Targets) -> Floats:
    """What targets are divided by, () or (width,); see `Targets.scale`."""
    if config.scale == "global":
        return np.asarray(np.sqrt(variances.mean()))
    if config.scale == "per-coordinate":
        spread = np.sqrt(variances)
        return np.where(spread > _NOISE * spread.max(), spread, 1.0)
    return np.asarray(1.0)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Restore the thread counts that UMAP's parallel runtime changes for the whole process."""
    import numba

    torch = sys.modules.get("torch")
    torch_threads = torch.get_num_threads() if torch else 0
    numba_threads = numba.get_num_threads()
    try:
        yield
    finally:
        numba.set_num_threads(numba_threads)
        if torch:
            torch.set_num_threads(torch_threads)
