"""Embeddings to targets: as many coordinates as the tapped layer has, centred and scaled."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.config import Targets, Umap
from models.errors import BadInput
from models.targets.reducers import Reducer, scaled, threads_kept

# A coordinate whose spread is below this share of the largest one's is rounding noise.
_NOISE = 1e-6


def reduce(
    embeddings: NDArray[np.float32], width: int | None, config: Targets
) -> NDArray[np.float32]:
    """The targets of `fit`, without the reducer."""
    return fit(embeddings, width, config)[1]


def fit(
    embeddings: NDArray[np.float32], width: int | None, config: Targets
) -> tuple[Reducer, NDArray[np.float32]]:
    """Reduce to `width` coordinates, then centre and scale them.

    Equal input, settings and seed give equal bits.

    Args:
        embeddings: float32 (n_users or n_items, d).
        width: coordinates per target; None where nothing is reduced.
        config: reduction, seed, centring and scale.

    Returns:
        What was fitted, for those who come later; and float32 (n, width), or all of the
        embeddings' columns where nothing is reduced.

    Raises:
        BadInput: if all embeddings are equal, or there are too few users or dimensions for
            `width` coordinates.
    """
    if not len(embeddings) or not np.ptp(embeddings, axis=0).any():
        raise BadInput(all_equal(len(embeddings)))
    parts: dict[str, Any] = {}
    if config.reduction == "none" or width is None:
        reduced = embeddings.astype(np.float64)
    elif config.reduction == "pca":
        reduced, parts["mean"], parts["components"] = _pca(embeddings, width, config.seed)
    else:
        reduced, parts["manifold"] = fit_umap(embeddings, width, config.umap, config.seed)
    centre, scale = _moments(reduced, config)
    known = settings(config, width, embeddings.shape[1])
    return Reducer(centre, scale, **parts, settings=known), scaled(reduced, centre, scale)


def all_equal(n: int) -> str:
    """What to say where nothing can be fitted."""
    return (
        f"targets: all {n} embeddings are equal, so they tell nobody apart; check the profiles' "
        "texts"
    )


def settings(config: Targets, width: int | None, columns: int) -> dict[str, Any]:
    """What decides a fit but the embeddings themselves: a reducer of others is of no use."""
    whole = config.reduction == "none"
    return {**config.identity(), "width": None if whole else width, "columns": columns}


def fit_umap(
    embeddings: NDArray[np.float32], width: int, parameters: Umap, seed: int
) -> tuple[NDArray[np.float64], Any]:
    """UMAP (McInnes et al. 2018), one thread: coordinates, float64 (n, width), and the fitted UMAP.

    It starts from principal components where there are as many: the spectral start fails for
    fewer than about 2·width users, and keeps no more of the embeddings' geometry.
    """
    n, dimensions = embeddings.shape
    if n < max(3, width + 1):
        raise BadInput(
            f"targets.width: UMAP to {width} coordinates needs at least {max(3, width + 1)} users "
            f"with a profile, not {n}; lower the width or set targets.reduction to pca"
        )
    from umap import UMAP

    with threads_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_neighbors is larger than the dataset")
        manifold = UMAP(
            n_components=width,
            n_neighbors=parameters.n_neighbors,
            min_dist=parameters.min_dist,
            metric=parameters.metric,
            random_state=seed,
            n_jobs=1,
            init="pca" if width <= dimensions else "random",
        )
        reduced = manifold.fit_transform(embeddings)
    if not np.isfinite(reduced).all():
        lost = int((~np.isfinite(reduced).all(axis=1)).sum())
        raise BadInput(
            f"targets: UMAP found no neighbour for {lost} of {n} users (metric "
            f"{parameters.metric}); set targets.umap.metric to euclidean or targets.reduction "
            "to pca"
        )
    return np.asarray(reduced, dtype=np.float64), manifold


def _pca(
    embeddings: NDArray[np.float32], width: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Principal components by an exact decomposition, signs fixed by scikit-learn.

    Returns:
        Coordinates, mean and components; see `Reducer`.
    """
    n, dimensions = embeddings.shape
    require_components(n, dimensions, width)
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if n >= dimensions else "full"
    fitted = PCA(width, svd_solver=solver, random_state=seed)
    coordinates = fitted.fit_transform(embeddings.astype(np.float64))
    return np.asarray(coordinates, dtype=np.float64), fitted.mean_, fitted.components_


def require_components(n: int, dimensions: int, width: int) -> None:
    """Refuse more principal components than there are.

    Raises:
        BadInput: naming both numbers.
    """
    if width > min(n, dimensions):
        raise BadInput(
            f"targets.width: {n} users with {dimensions}-d embeddings have at most "
            f"{min(n, dimensions)} principal components, not {width}; lower the width"
        )


def standardise(reduced: NDArray[np.float64], config: Targets) -> NDArray[np.float32]:
    """Centre per coordinate, and divide by standard deviations taken around those centres."""
    return scaled(reduced, *_moments(reduced, config))


def _moments(
    reduced: NDArray[np.float64], config: Targets
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is subtracted, (width,), and then divided by, () or (width,)."""
    mean = reduced.mean(axis=0)
    centred = reduced - mean
    scale = scale_of(centred.std(), centred.std(axis=0), config)
    return (mean if config.centre else np.zeros_like(mean)), scale


def scale_of(
    overall: np.float64, spread: NDArray[np.float64], config: Targets
) -> NDArray[np.float64]:
    """What targets are divided by, () or (width,).

    Args:
        overall: standard deviation over all coordinates, each around its mean.
        spread: float64 (width,), of each coordinate.
        config: scale.
    """
    if config.scale == "global":
        return np.asarray(overall)
    if config.scale == "per-coordinate":
        return np.where(spread > _NOISE * spread.max(), spread, 1.0)
    return np.asarray(1.0)
