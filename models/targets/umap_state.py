"""A fitted UMAP as arrays, and the same UMAP made of them again; no pickle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_FOREST = ("hyperplanes", "offsets", "children", "indices", "leaf_size")
_GRAPH = ("data", "indices", "indptr")
_DERIVED = "_raw_data"
"""The index's copy of the data: rows of unit length for cosine, in the order of its tree."""


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


def to_arrays(manifold: Any) -> tuple[Arrays, dict[str, Any]]:
    """Take a fitted UMAP apart: arrays by name, and the search index's JSON-ready values.

    Of fewer than 4096 points UMAP keeps no index, and the second is empty.
    """
    arrays = {"points": manifold._raw_data, "placed": manifold.embedding_}
    if manifold._small_data:
        return arrays, {}
    state = manifold._knn_search_index.__getstate__()
    graph, (forest,) = state["_search_graph"], state["_search_forest"]
    arrays |= {
        f"index.{name}": value
        for name, value in state.items()
        if isinstance(value, np.ndarray | np.float32) and name != _DERIVED
    }
    arrays |= {f"graph.{name}": getattr(graph, name) for name in _GRAPH}
    arrays |= {
        f"forest.{name}": np.asarray(part) for name, part in zip(_FOREST, forest, strict=True)
    }
    plain = {k: v for k, v in state.items() if v is None or isinstance(v, bool | int | float | str)}
    return {name: np.atleast_1d(array) for name, array in arrays.items()}, plain


def from_arrays(arrays: Arrays, plain: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Make the fitted UMAP whose parts `to_arrays` returned; it transforms to the same bits.

    Raises:
        KeyError: if a part is missing.
        ValueError: if an index points beyond the data, which compiled code would follow.
    """
    import joblib
    from umap.umap_ import find_ab_params

    points = np.ascontiguousarray(arrays["points"], dtype=np.float32)
    manifold = estimator(settings, points.shape[1])
    manifold._raw_data, manifold.embedding_ = points, arrays["placed"]
    if arrays["placed"].shape != (len(points), settings["width"]):
        raise ValueError("UMAP's points and coordinates differ in number")
    manifold._initial_alpha = manifold.learning_rate
    manifold._validate_parameters()
    manifold._a, manifold._b = find_ab_params(manifold.spread, manifold.min_dist)
    manifold._n_neighbors = min(manifold.n_neighbors, len(points) - 1)
    manifold._small_data = not plain
    manifold._input_hash = joblib.hash(points)
    if plain:
        manifold._knn_search_index = _index(arrays, plain, points)
    return manifold


def _index(arrays: Arrays, plain: Mapping[str, Any], points: NDArray[np.float32]) -> Any:
    """The search index of a UMAP of many points."""
    from pynndescent import NNDescent
    from scipy.sparse import csr_array
    from sklearn.preprocessing import normalize

    graph = tuple(arrays[f"graph.{name}"] for name in _GRAPH)
    *forest, leaf_size = (arrays[f"forest.{name}"] for name in _FOREST)
    require_inside(len(points), points.shape[1], graph, forest)
    state = {k.removeprefix("index."): v for k, v in arrays.items() if k.startswith("index.")}
    order = state["_vertex_order"]
    if not np.array_equal(np.sort(order), np.arange(len(points))):
        raise ValueError("the order of UMAP's index is none of its points")
    if len(state["_visited"]) != len(points) // 8 + 1 or len(state["search_rng_state"]) != 3:
        raise ValueError("a part of UMAP's index has the wrong length")
    kept = normalize(points, norm="l2") if plain["_normalized_data"] else points
    searchable = csr_array(graph, shape=(len(points), len(points)))
    searchable.has_sorted_indices = True
    index = NNDescent.__new__(NNDescent)
    index.__setstate__(
        {
            **plain,
            **state,
            "metric_kwds": {},
            "_dist_args": (),
            "_input_dtype": np.float32,
            "_min_distance": state["_min_distance"][0],
            "_search_graph": searchable,
            "_search_forest": ((*forest, int(leaf_size[0])),),
            _DERIVED: np.ascontiguousarray(kept[order]),
        }
    )
    return index


def require_inside(
    n: int, dimensions: int, graph: tuple[NDArray[Any], ...], forest: list[NDArray[Any]]
) -> None:
    """Refuse a graph or tree that leads out of n points of some dimensions; see `from_arrays`."""
    data, neighbours, starts = graph
    hyperplanes, offsets, children, leaves = forest
    nodes = len(children)
    inside = (
        len(starts) == n + 1
        and starts[0] == 0
        and starts[-1] == len(neighbours) == len(data)
        and (np.diff(starts) >= 0).all()
        and ((neighbours >= 0) & (neighbours < n)).all()
        and ((leaves >= 0) & (leaves < n)).all()
        and len(leaves) == n
        and children.shape == (nodes, 2)
        and ((children >= -n) & (children < nodes)).all()
        and len(offsets) == nodes
        and hyperplanes.shape == (nodes, dimensions)
        # A node's children come after it, so that no search runs in circles.
        and ((children <= 0) | (children > np.arange(nodes)[:, None])).all()
    )
    if not inside:
        raise ValueError("UMAP's index points beyond its data")
