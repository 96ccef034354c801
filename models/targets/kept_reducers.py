"""Reducers across runs: stored after the fit, reused while the embeddings stay alike."""

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.arrow import Ints, Singles, positions
from models.config import Refit
from models.embeddings.text_batches import to_matrix
from models.schemas import EMBEDDING, noun
from models.targets.reduction import Reducer
from models.targets.umap_state import from_arrays, to_arrays

_MANIFOLD = "manifold."
_PACKAGES = ("numba", "numpy", "pynndescent", "scikit-learn", "scipy", "umap-learn")


class Unusable(ValueError):
    """A stored reducer that this installation cannot be sure to read, with the reason."""


def dump(reducer: Reducer) -> bytes:
    """Write a reducer's arrays as a safetensors file; equal reducers give equal bytes."""
    from safetensors.numpy import save

    arrays = {"centre": reducer.centre, "scale": np.atleast_1d(reducer.scale)}
    record: dict[str, Any] = {"settings": reducer.settings, "versions": _versions()}
    if reducer.mean is not None and reducer.components is not None:
        arrays |= {"mean": reducer.mean, "components": reducer.components}
    if reducer.manifold is not None:
        parts, record["indexed"] = to_arrays(reducer.manifold)
        arrays |= {_MANIFOLD + name: part for name, part in parts.items()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"llmkt": json.dumps(record, sort_keys=True)})


def load(content: bytes) -> Reducer:
    """Read what `dump` wrote, executing nothing; Unusable if other versions wrote it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    try:
        length = int.from_bytes(content[:8], "little")
        arrays = load_arrays(content)
        record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["llmkt"])
        return _reducer(arrays, record)
    except Unusable:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Unusable(f"the kept reducer is no such file ({type(error).__name__})") from error


def _reducer(arrays: dict[str, NDArray[Any]], record: dict[str, Any]) -> Reducer:
    manifold, scale = None, arrays["scale"]
    if _MANIFOLD + "points" in arrays:
        for package, now in _versions().items():
            if record["versions"].get(package) != now:
                raise Unusable(f"fitted with {package} {record['versions'].get(package)}")
        parts = {name.removeprefix(_MANIFOLD): part for name, part in arrays.items()}
        manifold = from_arrays(parts, record["indexed"], record["settings"])
    return Reducer(
        arrays["centre"],
        scale if len(scale) > 1 else scale.reshape(()),
        arrays.get("mean"),
        arrays.get("components"),
        manifold,
        record["settings"],
    )


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def refit_reason(policy: Refit, at_fit: pa.Table, now: pa.Table) -> str | None:
    """Say why a kept reducer no longer fits; None while it does.

    Both tables are `vectors("embedding", d, key)`, those of the fit and of this run.
    """
    key = now.column_names[0]
    is_new = np.asarray(pc.invert(pc.is_in(now[key], at_fit[key].combine_chunks())))
    if is_new.mean() > policy.new_share:
        return f"{100 * is_new.mean():.0f} % new {noun(key)}s"
    moved = drift(to_matrix(at_fit[EMBEDDING]), to_matrix(now[EMBEDDING]))
    return f"drift {moved:.2f}" if moved > policy.drift else None


def drift(at_fit: Singles, now: Singles) -> float:
    """Measure how far the mean embedding moved, in units of the spread at the fit.

    The spread is the root mean square distance of embeddings, float32 (n, d), from their mean.
    Drift tells whether the embeddings as a whole have moved to where the reducer knows nobody;
    single users who moved among the others are transformed well.
    """
    centre = at_fit.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(((at_fit - centre) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(now.mean(axis=0, dtype=np.float64) - centre) / spread)


def unchanged(before: pa.Table, now: pa.Table) -> Ints:
    """Find each row of `now` in `before`, with the same embedding to the bit: int64 (n,), else -1.

    Both are `vectors("embedding", d, key)`.
    """
    key = now.column_names[0]
    rows = positions(now[key], before[key].combine_chunks())
    same = rows >= 0
    earlier, current = to_matrix(before[EMBEDDING]), to_matrix(now[EMBEDDING])
    same[same] = (earlier[rows[same]] == current[same]).all(axis=1)
    return np.where(same, rows, -1)
