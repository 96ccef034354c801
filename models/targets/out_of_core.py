"""Targets of more embeddings than fit into memory: `reduction.py`, in batches.

Principal components come from all embeddings, UMAP from a sample. Centre and scale are those of all
targets. Where everything fits, `models.targets.reduction.fit` is as good and its results are
older, so it stays in use there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.config import Targets
from models.errors import BadInput
from models.targets.reducers import Reducer
from models.targets.reduction import all_equal, fit_umap, require_components, scale_of, settings

Source = Callable[[], Iterator[NDArray[np.float32]]]
"""Starts an iteration over all embeddings in batches, float32 (n, d), always the same ones."""


def fits_in_memory(config: Targets, rows: int, at_once: int) -> bool:
    """Whether `models.targets.reduction.fit` is to be used rather than this module.

    Args:
        config: the targets' section.
        rows: how many embeddings there are.
        at_once: how many may be in memory.
    """
    is_umap = config.reduction not in ("pca", "none")
    return rows <= (config.umap.fit_sample if is_umap else at_once)


@dataclass
class Moments:
    """Means and spreads of columns, added up batch by batch (Chan et al. 1979)."""

    n: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """Sums of squared distances from the mean."""

    def add(self, batch: NDArray[np.float64]) -> None:
        """Take in rows, float64 (n, width)."""
        mean, n = batch.mean(axis=0), self.n + len(batch)
        moved = mean - self.mean
        between = moved**2 * (self.n * len(batch) / n)
        self.squares = self.squares + ((batch - mean) ** 2).sum(axis=0) + between
        self.mean = self.mean + moved * (len(batch) / n)
        self.n = n

    def centre_and_scale(self, config: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is subtracted, (width,), and then divided by, () or (width,)."""
        variances = self.squares / max(self.n, 1)
        scale = scale_of(np.sqrt(variances.mean()), np.sqrt(variances), config)
        return (self.mean if config.centre else np.zeros_like(self.mean)), scale


@dataclass(frozen=True)
class Reduction:
    """What was fitted, before centre and scale are known.

    Attributes:
        parts: `Reducer`'s `mean` and `components`, or its `manifold`, or nothing.
        sample: int64, ascending: the rows that UMAP was fitted on.
        placed: float32 (len(sample), width): where the fit has put them.
    """

    parts: dict[str, Any]
    sample: NDArray[np.int64]
    placed: NDArray[np.float32]

    def reduced(self, source: Source) -> Iterator[NDArray[np.float64]]:
        """All embeddings' coordinates in batches, float64 (n, width).

        Rows of the sample keep their place, the others are transformed.
        """
        plain = Reducer(np.asarray(0.0), np.asarray(1.0), **self.parts)
        start = 0
        for batch in source():
            first, last = np.searchsorted(self.sample, (start, start + len(batch)))
            known = self.sample[first:last] - start
            if len(known):
                others = np.setdiff1d(np.arange(len(batch)), known)
                coordinates = np.empty((len(batch), self.placed.shape[1]))
                coordinates[known] = self.placed[first:last]
                if len(others):
                    coordinates[others] = plain.coordinates(batch[others])
            else:
                coordinates = plain.coordinates(batch)
            yield coordinates
            start += len(batch)


def fit(source: Source, rows: int, width: int | None, config: Targets) -> Reduction:
    """Fit a reduction to `width` coordinates.

    Args:
        source: all embeddings.
        rows: how many they are.
        width: coordinates per target; None where nothing is reduced.
        config: reduction and seed.

    Raises:
        BadInput: as `models.targets.reduction.fit`.
    """
    _require_differences(source)
    nothing = np.empty(0, np.int64), np.empty((0, width or 0), np.float32)
    if config.reduction == "none" or width is None:
        return Reduction({}, *nothing)
    if config.reduction == "pca":
        return Reduction(_components(source, rows, width), *nothing)
    rng = np.random.default_rng(config.seed)
    sample = np.sort(rng.choice(rows, config.umap.fit_sample, replace=False))
    placed, manifold = fit_umap(_rows(source, sample), width, config.umap, config.seed)
    return Reduction({"manifold": manifold}, sample, placed.astype(np.float32))


def finish(
    reduction: Reduction, moments: Moments, width: int | None, columns: int, config: Targets
) -> Reducer:
    """The reducer with its centre and scale.

    Args:
        reduction: from `fit`.
        moments: of everything that it reduced.
        width: as in `fit`.
        columns: the embeddings' width.
        config: centring and scale.

    Raises:
        BadInput: if UMAP found no place for some.
    """
    if not np.isfinite(moments.mean).all():
        raise BadInput(
            f"targets: UMAP found no neighbour for some of {moments.n} users (metric "
            f"{config.umap.metric}); set targets.umap.metric to euclidean or targets.reduction "
            "to pca"
        )
    known = settings(config, width, columns)
    return Reducer(*moments.centre_and_scale(config), **reduction.parts, settings=known)


def _require_differences(source: Source) -> None:
    first: NDArray[np.float32] | None = None
    rows = 0
    for batch in source():
        first = batch[0] if first is None else first
        if (batch != first).any():
            return
        rows += len(batch)
    raise BadInput(all_equal(rows))


def _rows(source: Source, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
    """Some embeddings; `wanted` ascending."""
    start, found = 0, list[NDArray[np.float32]]()
    for batch in source():
        first, last = np.searchsorted(wanted, (start, start + len(batch)))
        found.append(batch[wanted[first:last] - start])
        start += len(batch)
    return np.concatenate(found)


def _components(source: Source, rows: int, width: int) -> dict[str, NDArray[np.float64]]:
    """Mean and principal components of all rows, by their covariance; signs as scikit-learn's."""
    total: Any = 0.0
    products: Any = 0.0
    for batch in source():
        exact = batch.astype(np.float64)
        total = total + exact.sum(axis=0)
        products = products + exact.T @ exact
    mean = total / rows
    require_components(rows, len(mean), width)
    covariance = products / rows - np.outer(mean, mean)
    vectors = np.linalg.eigh(covariance)[1][:, ::-1][:, :width].T
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    return {"mean": mean, "components": np.ascontiguousarray(vectors * np.sign(largest))}
