"""Compare two ways to place points that UMAP was not fitted on: its `transform`, and ours.

Points are the embeddings of the knowledge pack of ml-100k (`data/knowledge/ml-100k`, 2,611 distinct
texts about films and users). UMAP is fitted on half of them, with the pipeline's defaults, and both
ways place the other half. `--vectors` names another Parquet file with one column of vectors, such
as a run's embeddings:

- transform: `umap.UMAP.transform`, weighted means of fitted neighbours, then random steps;
- ours: the weighted means alone (`models.targets.umap_state.place`).

`overlap` is the share of a placed point's 15 nearest fitted points by embedding (cosine) that are
among its 15 nearest by coordinates (Euclidean); `whole` is that share after a fit on all points.
`ratio` is transform's median CPU time over ours, the sides by turns.

    .venv/bin/python -m benchmarks.umap_placing [--vectors FILE] [--rounds 5] [--width 64] [--json]
"""

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.preprocessing import normalize

from models.config import Targets
from models.embeddings.text_batches import to_matrix
from models.targets.reduction import settings
from models.targets.umap_state import estimator, place

VECTORS = Path(__file__).resolve().parent.parent / "data/knowledge/ml-100k/vectors.parquet"
NEIGHBOURS = 15

Matrix = NDArray[Any]


def main(arguments: list[str] | None = None) -> None:
    """Print a table, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=Path, default=VECTORS, help="Parquet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    columns = pq.read_table(options.vectors).columns
    [vectors] = (column for column in columns if pa.types.is_fixed_size_list(column.type))
    points = to_matrix(vectors).astype(np.float32)
    points = np.random.default_rng(0).permutation(np.unique(points, axis=0))
    fitted, others = np.array_split(points, 2)
    near = nearest(normalize(others), normalize(fitted))
    manifold = fit(fitted, options.width)
    whole = fit(points, options.width).embedding_
    overlaps = {"whole": overlap(near, whole[len(fitted) :], whole[: len(fitted)])}
    seconds: dict[str, list[float]] = {}
    sides: dict[str, Callable[[], Matrix]] = {
        "transform": lambda: transform(manifold, others),
        "ours": lambda: place(manifold, others),
    }
    for side in sides.values():
        side()  # compiles
    for _ in range(options.rounds):
        for name, side in sides.items():
            began = process_time()
            placed = side()
            seconds.setdefault(name, []).append(process_time() - began)
            overlaps[name] = overlap(near, placed, manifold.embedding_)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["transform"] / medians["ours"]
    if options.json:
        print(json.dumps({"ratio": round(ratio, 2), "overlap": overlaps}))
        return
    table = Table("way", "overlap", "CPU s")
    for name, share in overlaps.items():
        table.add_row(name, f"{share:.3f}", f"{medians[name]:.3f}" if name in medians else "")
    Console().print(table, f"{len(fitted)} fitted, {len(others)} placed; ratio {ratio:.1f}")


def fit(points: Matrix, width: int) -> Any:
    """A UMAP of the pipeline's defaults, fitted."""
    columns = points.shape[1]
    return estimator(settings(Targets(reduction="umap"), width, columns), columns).fit(points)


def transform(manifold: Any, points: Matrix) -> Matrix:
    """UMAP's own way."""
    manifold.transform_mode = "embedding"
    return np.asarray(manifold.transform(points))


def overlap(near: NDArray[np.int64], placed: Matrix, among: Matrix) -> float:
    """Share of the neighbours `near`, int64 (n, 15), that `placed` has among its nearest."""
    # Nearest by distance: most by the product less half of the squared length.
    closest = nearest(placed, among, -0.5 * (among**2).sum(axis=1))
    return float((closest[:, :, None] == near[:, None]).any(axis=1).mean())


def nearest(points: Matrix, among: Matrix, bias: Matrix | float = 0.0) -> NDArray[np.int64]:
    """The 15 rows of `among` with the largest product with each point, int64 (n, 15)."""
    return np.argpartition(-(points @ among.T + bias), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


if __name__ == "__main__":
    main()
