"""What a change of prompt did: to the words of a profile, and to the place of its vector."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from models.arrow import Floats, Singles

Word = tuple[Literal["same", "removed", "added"], str]
"""A run of words, and on which side it stands."""

QUANTILES = {"min": 0.0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def words_changed(before: str, after: str) -> list[Word]:
    """Compare two texts word by word; what was replaced comes as removed, then added."""
    return list(_runs(before.split(), after.split()))


def _runs(old: list[str], new: list[str]) -> Iterator[Word]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, first, last, start, stop in matcher.get_opcodes():
        if kind == "equal":
            yield "same", " ".join(old[first:last])
            continue
        if first < last:
            yield "removed", " ".join(old[first:last])
        if start < stop:
            yield "added", " ".join(new[start:stop])


def cosines(before: Singles, after: Singles) -> Floats:
    """Cosine of each row, float32 (rows, width), with its counterpart; 0 for a row of zeros."""
    old, new = before.astype(np.float64), after.astype(np.float64)
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    products = np.einsum("ij,ij->i", old, new)
    found = np.zeros(len(norms))
    np.divide(products, norms, out=found, where=norms > 0)
    return found


def distribution(values: Floats) -> dict[str, float]:
    """Mean, extremes and quantiles; empty for no values."""
    if not len(values):
        return {}
    quantiles = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    return {"mean": float(values.mean()), **quantiles, "max": float(values.max())}
