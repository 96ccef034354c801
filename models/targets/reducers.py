"""A reducer as it was fitted: it can be stored, and gives targets to those who come later."""

import io
import json
import pickle
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.config import Refit
from models.schemas import USER, noun

_MANIFOLD = "manifold"
_PACKAGES = ("numba", "numpy", "pynndescent", "scikit-learn", "scipy", "umap-learn")


class Unusable(ValueError):
    """A stored reducer that this installation cannot be sure to read, with the reason."""


@dataclass(frozen=True)
class Reducer:
    """What `reduction.fit` found; centre and scale stay those of the users at the fit.

    So old and new targets can be compared.

    Attributes:
        centre: float64 (width,), subtracted.
        scale: float64 () or (width,), divided by.
        mean: float64 (d,), of the embeddings, for principal components.
        components: float64 (width, d), for principal components.
        manifold: a fitted `umap.UMAP`.
        settings: what it was fitted with, JSON-ready.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    mean: NDArray[np.float64] | None = None
    components: NDArray[np.float64] | None = None
    manifold: Any = None
    settings: dict[str, Any] = field(default_factory=dict)

    def transform(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Targets of embeddings that the fit did not see.

        UMAP places points among those of the fit by sampling: equal input gives equal bits, but a
        point's place depends a little on which others are placed with it.

        Args:
            embeddings: float32 (n, d).

        Returns:
            float32 (n, width), NaN where UMAP finds no neighbour.
        """
        return scaled(self.coordinates(embeddings), self.centre, self.scale)

    def coordinates(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """As `transform`, before they are centred and scaled: float64 (n, width)."""
        reduced = embeddings.astype(np.float64)
        if self.components is not None and self.mean is not None:
            reduced = (reduced - self.mean) @ self.components.T
        elif self.manifold is not None:
            with threads_kept(), warnings.catch_warnings():
                warnings.filterwarnings("ignore")
                reduced = np.asarray(self.manifold.transform(embeddings), dtype=np.float64)
        return reduced


def scaled(
    reduced: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Centre and scale coordinates, float64 (n, width) to float32."""
    return np.ascontiguousarray((reduced - centre) / scale, dtype=np.float32)


def dump(reducer: Reducer) -> bytes:
    """A safetensors file of the reducer's arrays.

    A UMAP is a pickle in one of them, for it has no other form; see `load`. Of fewer than 4096
    users, equal reducers give equal bytes.
    """
    from safetensors.numpy import save

    arrays = {"centre": reducer.centre, "scale": np.atleast_1d(reducer.scale)}
    if reducer.mean is not None and reducer.components is not None:
        arrays |= {"mean": reducer.mean, "components": reducer.components}
    if reducer.manifold is not None:
        arrays[_MANIFOLD] = np.frombuffer(_pickled(reducer.manifold), dtype=np.uint8)
    record = {"settings": reducer.settings, "versions": _versions()}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"llmkt": json.dumps(record, sort_keys=True)})


def load(content: bytes) -> Reducer:
    """Read what `dump` wrote.

    A stored UMAP is unpickled, which executes what the file says: pass only what this project
    wrote itself and whose sha256 was verified (`Handle.verify`), never a file from elsewhere.
    Principal components and centres are plain arrays.

    Raises:
        Unusable: if other versions of the libraries stored a UMAP.
    """
    from safetensors.numpy import load as load_arrays

    length = int.from_bytes(content[:8], "little")
    record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["llmkt"])
    arrays = load_arrays(content)
    manifold = None
    if _MANIFOLD in arrays:
        for package, now in _versions().items():
            if record["versions"].get(package) != now:
                raise Unusable(f"fitted with {package} {record['versions'].get(package)}")
        manifold = pickle.loads(arrays[_MANIFOLD].tobytes())
    scale = arrays["scale"]
    return Reducer(
        arrays["centre"],
        scale if len(scale) > 1 else scale.reshape(()),
        arrays.get("mean"),
        arrays.get("components"),
        manifold,
        record["settings"],
    )


class _ByName(pickle.Pickler):
    """Stores compiled functions by name: numba's own form differs from process to process."""

    def reducer_override(self, value: Any) -> Any:
        function = getattr(value, "py_func", None)
        if function is None:
            return NotImplemented
        found = getattr(sys.modules.get(function.__module__), function.__qualname__, None)
        return function.__qualname__ if found is value else NotImplemented


def _pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    _ByName(stream, protocol=5).dump(value)
    return stream.getvalue()


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


@dataclass(frozen=True)
class Embedded:
    """Users or items, string (n,), and their embeddings, float32 (n, d)."""

    ids: pa.Array
    matrix: NDArray[np.float32]


def refit_reason(policy: Refit, at_fit: Embedded, now: Embedded, key: str = USER) -> str | None:
    """Why a kept reducer no longer fits; None while it does.

    Drift is the distance between the mean embeddings of now and of the fit, divided by the spread
    at the fit: the root mean square distance of embeddings from their mean. It tells whether the
    embeddings as a whole have moved to where the reducer knows nobody; single users who moved
    among the others are transformed well.
    """
    is_new = np.asarray(pc.invert(pc.is_in(now.ids, at_fit.ids)))
    if is_new.mean() > policy.new_share:
        return f"{100 * is_new.mean():.0f} % new {noun(key)}s"
    moved = drift(at_fit.matrix, now.matrix)
    return f"drift {moved:.2f}" if moved > policy.drift else None


def drift(at_fit: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """How far the mean embedding moved, in units of the spread at the fit; see `refit_reason`."""
    centre = at_fit.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(((at_fit - centre) ** 2).sum(axis=1).mean())
    return float(np.linalg.norm(now.mean(axis=0, dtype=np.float64) - centre) / spread)


def unchanged(before: Embedded, now: Embedded) -> NDArray[np.int64]:
    """Where each one now stood before with the same embedding to the bit: int64 (n,), else -1."""
    rows = np.asarray(pc.fill_null(pc.index_in(now.ids, before.ids), -1), dtype=np.int64)
    same = rows >= 0
    same[same] = (before.matrix[rows[same]] == now.matrix[same]).all(axis=1)
    return np.where(same, rows, -1)


@contextmanager
def threads_kept() -> Iterator[None]:
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
