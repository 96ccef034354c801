"""A ranking metric of one's own.

evaluation: {metrics: [ndcg, "examples/first_hit.py:first_hit"]}
"""

import numpy as np
from numpy.typing import NDArray


def first_hit(hits: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where the very first item is relevant, 1/2 where only a later one of the k is, else 0."""
    return np.where(hits[:, 0], 1.0, np.where(hits.any(axis=1), 0.5, 0.0))
