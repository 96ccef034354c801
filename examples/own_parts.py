"""A text model, a reduction, a control arm and a search space of one's own.

embeddings: {provider: "examples/own_parts.py:letters"}
targets: {reduction: "examples/own_parts.py:random_projection"}
training: {arms: [baseline, transfer, "examples/own_parts.py:popularity"]}
search: {space: "examples/own_parts.py:SPACE"}
"""

import numpy as np
from numpy.typing import NDArray

from models.config.arms import ControlInputs

SPACE = {"transfer.alpha": {"choices": [0.0, 0.1, 0.3]}}
"""By dotted key, as in a file."""


def letters(texts: list[str]) -> NDArray[np.float64]:
    """Shares of the letters a to z in each text: float (n, 26)."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts])
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def random_projection(
    embeddings: NDArray[np.float32], width: int, seed: int
) -> NDArray[np.float64]:
    """Project float32 (n, d) to (n, width) by a Gaussian matrix."""
    matrix = np.random.default_rng(seed).normal(size=(embeddings.shape[1], width))
    return embeddings @ matrix / np.sqrt(width)


def popularity(inputs: ControlInputs) -> NDArray[np.float32]:
    """Targets that say nothing but how active a user (how popular an item) is."""
    names, counts = np.unique(inputs.train[inputs.key].to_numpy(), return_counts=True)
    known = dict(zip(names, counts, strict=True))
    activity = np.log1p([known.get(subject, 0) for subject in inputs.subjects])
    rng = np.random.default_rng(inputs.fixed_seed)
    return (np.outer(activity, rng.normal(size=inputs.targets.shape[1]))).astype(np.float32)
