"""A fitted UMAP as arrays, and the same UMAP made of them again; no pickle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrow import Floats

Arrays = dict[str, NDArray[Any]]
_SEARCH_WIDTH = 0.1


def estimator(settings: Mapping[str, Any], dimensions: int) -> Any:
    """Make the UMAP of `models.targets.reduction.settings`, not fitted.

    It starts from principal components where there are as many: the spectral start fails for
    fewer than about 2·width users, and keeps no more of the embeddings' geometry.
    """
    from umap import UMAP

    _keep_compiled()
    return UMAP(
        n_components=settings["width"],
        n_neighbors=settings["umap"]["n_neighbors"],
        min_dist=settings["umap"]["min_dist"],
        metric=settings["umap"]["metric"],
        random_state=settings["seed"],
        n_jobs=1,
        init="pca" if settings["width"] <= dimensions else "random",
    )


def _keep_compiled() -> None:
    """Let numba keep all that UMAP compiles, beside its files, as it does for a part: seconds."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_, utils

    for function in (*vars(layouts).values(), *vars(umap_).values(), *vars(utils).values()):
        if isinstance(function, Dispatcher):
            function.enable_caching()


def place(manifold: Any, embeddings: NDArray[Any]) -> Floats:
    """Place new points at the weighted mean of their nearest fitted neighbours.

    The weights are UMAP's own membership strengths, so this is where UMAP's `transform` starts.
    Its random steps after that take four fifths of the time, and move a point by what else is in
    the batch. Here a point's place depends on its embedding alone, and equal ones share theirs.

    Args:
        manifold: a fitted `umap.UMAP`.
        embeddings: float (n, d).

    Returns:
        float64 (n, width), NaN for a point without neighbours.
    """
    strengths = _strengths(manifold, embeddings).tocsr()
    equal = strengths == 1
    strengths = strengths.multiply(equal.sum(axis=1) == 0) + equal
    total = np.asarray(strengths.sum(axis=1))
    total[total == 0] = np.nan
    return np.asarray(strengths @ manifold.embedding_ / total, dtype=np.float64)


def _strengths(manifold: Any, embeddings: NDArray[Any]) -> Any:
    """UMAP's membership strengths of new points in fitted ones, sparse (n, fitted).

    An index is searched as widely as pynndescent does by default. UMAP's `transform` searches
    further: among points that all lie about equally far, through most of the index.
    """
    if manifold._small_data:
        manifold.transform_mode, manifold._input_hash = "graph", None
        return manifold.transform(embeddings)
    from scipy.sparse import coo_matrix
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    k = manifold._n_neighbors
    near, distances = manifold._knn_search_index.query(embeddings, k, epsilon=_SEARCH_WIDTH)
    near[distances >= manifold._disconnection_distance] = -1
    distances = distances.astype(np.float32, order="C")
    widths = smooth_knn_dist(distances, float(k), local_connectivity=0.0)
    rows, columns, strengths, _ = compute_membership_strengths(
        near, distances, *widths, bipartite=True
    )
    return coo_matrix((strengths, (rows, columns)), (len(embeddings), len(manifold.embedding_)))


def to_arrays(manifold: Any) -> tuple[Arrays, bool]:
    """Take a fitted UMAP apart: arrays by name, and whether it has a search index.

    Of fewer than 4096 points UMAP keeps none.
    """
    arrays = {"points": manifold._raw_data, "placed": manifold.embedding_}
    return arrays, not manifold._small_data


def from_arrays(arrays: Arrays, indexed: bool, settings: Mapping[str, Any]) -> Any:
    """Make the fitted UMAP whose parts `to_arrays` returned; it transforms to the same bits.

    The search index is built again, as the fit built it: with the seed's first random numbers.

    Raises:
        KeyError: if a part is missing.
        ValueError: if points and coordinates differ in number.
    """
    from sklearn.utils import check_random_state
    from umap.umap_ import nearest_neighbors

    points = np.ascontiguousarray(arrays["points"], dtype=np.float32)
    manifold = estimator(settings, points.shape[1])
    manifold._raw_data, manifold.embedding_ = points, arrays["placed"]
    if arrays["placed"].shape != (len(points), settings["width"]):
        raise ValueError("UMAP's points and coordinates differ in number")
    manifold._initial_alpha = manifold.learning_rate  # checked, and otherwise of no use here
    manifold._validate_parameters()
    manifold._n_neighbors = min(manifold.n_neighbors, len(points) - 1)
    manifold._small_data = not indexed
    if indexed:
        *_, manifold._knn_search_index = nearest_neighbors(
            points.copy(),
            manifold._n_neighbors,
            manifold.metric,
            manifold._metric_kwds,
            manifold.angular_rp_forest,
            check_random_state(settings["seed"]),
            manifold.low_memory,
            n_jobs=1,
        )
    return manifold
