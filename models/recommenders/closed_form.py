"""EASE with and without profiles: item-item weights by one linear solve, no epochs.

EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data") predicts the interactions
X (n_users, n_items) from themselves. Here W stacks item weights B over weights C of further inputs,
Z = [X, γU], M is what B is pulled to, and W with diag B = 0 minimises

    ‖X − ZW‖² + λ‖B − M‖² + λ‖C‖².                                                    (1)

Each column j is a ridge regression of its own, with one multiplier μ_j for B_jj = 0. With
P = (ZᵀZ + λI)⁻¹ and E = [I; 0] we have ZᵀX = (P⁻¹ − λI)E, and the gradient vanishes at

    W = P(ZᵀX + λEM − E·diag μ) = E + λPEM − PE·diag(λ + μ),                          (2)

where B_jj = 0 means λ + μ_j = (1 + λ(PEM)_jj) / P_jj. EASE is Z = X, M = 0 (Steck, equation 8).

Embeddings are centred over the profiles that there are and brought to unit length: F of items
(n_items, width), U of users. α is the knowledge's share. S are the weights of an EASE on F alone:
the coordinates are its users, its λ is `side_reg`.

Items' embeddings are what B is pulled to (L3AE, Moon et al. 2025, "LLM-enhanced linear autoencoders
for recommendation"): the ridge is λ(1−α)‖B‖² + λα‖B − S‖², which is λ‖B − αS‖² and a constant: (1)
with M = αS.

Users' embeddings are U in (1), with γ² = α·c / (mean of UᵀU's diagonal). Only B's diagonal is held
at zero: a profile written from a user's items tells of the very items that it helps to predict,
and nothing but the ridge on C guards against that.

What has no profile is left out. Where one of two items has none, B is pulled to 0 as in EASE. A
user without a profile has a zero row in U, and tells of B alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack
from torch import Tensor, nn

from models.arrow import Bools, Floats, Ints, Singles
from models.errors import BadInput
from models.recommenders.hyperparameters import SIDE_REG
from models.schemas import USER

MAX_ITEMS = 20_000
PEAK_MATRICES = 4
"""At most so many float64 (n_items, n_items) are held at a time."""

_NOISE = 1e-6
"""A centred vector shorter than this share of the longest is float32's rounding."""
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class SideInformation:
    """Embeddings of profiles, float (n, width), and which rows hold one, bool (n,).

    No embeddings mean no knowledge of that side, no marks that all rows are known. Rows that are
    not known are never read.
    """

    items: NDArray[np.floating[Any]] | None = None
    items_known: Bools | None = None
    users: NDArray[np.floating[Any]] | None = None
    users_known: Bools | None = None


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A fitted model: scores are `history @ item_weights + user_vectors @ user_weights`.

    Attributes:
        history: sparse float32 (n_users, n_items), the training matrix.
        item_weights: float32 (n_items, n_items), from row i to column j; zero diagonal.
        user_vectors: float32 (n_users, width), zero where a user has no profile; width may be 0.
        user_weights: float32 (width, n_items).
    """

    history: sparse.csr_matrix
    item_weights: Singles
    user_vectors: Singles
    user_weights: Singles

    def scores(self, users: Ints) -> Singles:
        """Scores of all items, seen ones too, for rows of the training matrix.

        float32 (len(users), n_items), for int64 (n,) row numbers.
        """
        scores = np.empty((len(users), self.item_weights.shape[1]), dtype=np.float32)
        for start in range(0, len(users), _BLOCK):
            rows = users[start : start + _BLOCK]
            block = scores[start : start + _BLOCK]
            block[:] = self.history[rows] @ self.item_weights
            if self.user_vectors.shape[1]:
                block += self.user_vectors[rows] @ self.user_weights
        return scores

    def weights(self) -> dict[str, NDArray[Any]]:
        """All that scoring needs, as named arrays: what `from_weights` reads."""
        return {
            "item_weights": self.item_weights,
            "user_vectors": self.user_vectors,
            "user_weights": self.user_weights,
            "history_starts": self.history.indptr,
            "history_items": self.history.indices,
            "history_values": self.history.data,
        }

    @classmethod
    def from_weights(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The model with these `weights()`, to the bit; BadInput if an array is missing."""
        try:
            item_weights, vectors = arrays["item_weights"], arrays["user_vectors"]
            rows = [arrays[f"history_{part}"] for part in ("values", "items", "starts")]
            history = sparse.csr_matrix(tuple(rows), shape=(len(vectors), len(item_weights)))
            return cls(history, item_weights, vectors, arrays["user_weights"])
        except KeyError as error:
            raise BadInput(f"EASE: the weights lack {error}. Train the model again.") from error


class Ease(nn.Module):
    """EASE as a module that is scored and saved like any other.

    It is fitted when it is first scored or saved: not when weights are loaded, nor before it has
    its knowledge. Its `state_dict` holds what `ClosedForm.weights` names: all that scoring needs.
    """

    def __init__(
        self,
        users: Ints,
        items: Ints,
        shape: tuple[int, int],
        settings: Mapping[str, Any],
        *_: Any,
    ) -> None:
        """Take training pairs by internal ids, int64 (n,) each; `shape` counts ids with padding.

        `settings` has EASE's hyper-parameters `reg_weight` and `side_reg`, see `fit`.
        """
        super().__init__()
        pairs = np.ones(len(users), np.float32), (users, items)
        self._train, self._settings = sparse.csr_matrix(pairs, shape=shape), settings
        self.take_prior(0.0, SideInformation())

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Be fitted with the knowledge in `side`; `alpha` is its share, 0 to 1."""
        self._knowledge = alpha, side
        self._fitted: ClosedForm | None = None

    def fitted(self) -> ClosedForm:
        """The model, fitted once; for errors see `fit`."""
        if self._fitted is None:
            reg, side_reg = self._settings["reg_weight"], self._settings["side_reg"]
            self._fitted = fit(self._train, reg, *self._knowledge, side_reg)
        return self._fitted

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, _keep_vars: bool
    ) -> None:
        for name, value in self.fitted().weights().items():
            destination[prefix + name] = torch.from_numpy(np.ascontiguousarray(value))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *_: Any, **__: Any
    ) -> None:
        own = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
        self._fitted = ClosedForm.from_weights(
            {name.removeprefix(prefix): value.cpu().numpy() for name, value in own.items()}
        )

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score all items for users, as RecBole's models do: float32 (n, n_items)."""
        users = interaction[USER]
        return torch.from_numpy(self.fitted().scores(users.cpu().numpy())).to(users.device)


def fit(
    train: sparse.csr_matrix,
    reg_weight: float,
    alpha: float = 0.0,
    side: SideInformation | None = None,
    side_reg: float = SIDE_REG,
) -> ClosedForm:
    """Fit EASE with the knowledge in `side`, as the module describes; EASE itself at α = 0.

    `train` is sparse (n_users, n_items), 1 per interaction; `side` are the embeddings, in the order
    of its rows and columns; `reg_weight` is λ, `side_reg` that of S, against vectors of unit
    length.

    Raises:
        BadInput: for too many items, values out of range, or embeddings that do not fit `train`.
    """
    n_users, n_items = train.shape
    _check(n_items, alpha, reg_weight=reg_weight, side_reg=side_reg)
    side = side or SideInformation()
    items, known = unit_vectors("EASE", "items", side.items, side.items_known, n_items)
    users, present = unit_vectors("EASE", "users", side.users, side.users_known, n_users)
    exact = sparse.csr_matrix(train, dtype=np.float64)
    gram: Floats = (exact.T @ exact).toarray(order="C")
    size = float(gram.trace()) / n_items
    inputs = np.zeros((n_users, 0))
    if alpha > 0 and present.any():
        inputs = users * np.sqrt(alpha * size * users.shape[1] / present.sum())
        cross = np.asarray(train.T @ inputs)
        gram = np.block([[gram, cross], [cross.T, inputs.T @ inputs]])
    pull = alpha * _semantic(items, side_reg) if alpha > 0 and known.any() else None
    weights = _solve(gram, reg_weight, n_items, pull)
    single = weights.astype(np.float32)
    history = sparse.csr_matrix(train, dtype=np.float32)
    return ClosedForm(history, single[:n_items], inputs.astype(np.float32), single[n_items:])


def _check(n_items: int, alpha: float, **weights: float) -> None:
    if n_items > MAX_ITEMS:
        gigabytes = PEAK_MATRICES * 8 * n_items**2 / 1e9
        raise BadInput(
            f"EASE: {n_items} items need about {gigabytes:.0f} GB of memory, the limit is "
            f"{MAX_ITEMS} items. Leave out the rarest items or this model."
        )
    for name, value in weights.items():
        if not (np.isfinite(value) and value > 0):
            raise BadInput(f"EASE: {name} is {value}. Set it to a number above 0.")
    if not 0 <= alpha <= 1:
        raise BadInput(f"EASE: alpha is {alpha}. Set it to a number from 0 to 1.")


def ridge_shares(unit: Floats, known: Ints, rows: Ints, ridge: float) -> Floats:
    """The shares of known rows' values in what a ridge regression foretells of others, less 1 / n.

    (t_row − t̄)(TᵀT + ρI)⁻¹Tᵀ, with T the centred vectors of the known rows: float64 (m, n).

    Args:
        unit: float64 (n_ids, width).
        known: int64 (n,), row numbers in `unit`.
        rows: int64 (m,), likewise.
        ridge: ρ.
    """
    middle = unit[known].mean(axis=0)
    centred = unit[known] - middle
    system = centred.T @ centred
    system[np.diag_indices_from(system)] += ridge
    found: Floats = (unit[rows] - middle) @ np.linalg.solve(system, centred.T)
    return found


def unit_vectors(
    model: str, what: str, given: NDArray[np.floating[Any]] | None, known: Bools | None, n: int
) -> tuple[Floats, Bools]:
    """Centred unit vectors, float64 (n, width), zero where unknown, and which are known.

    `given` is float (n, width), or None; `known`, bool (n,), marks the rows that hold one, None
    all; `model` and `what` (users or items) are for messages.

    Raises:
        BadInput: for other shapes, or values that are not finite.
    """
    if given is None:
        return np.zeros((n, 0)), np.zeros(n, dtype=bool)
    known = np.ones(n, dtype=bool) if known is None else known
    if given.ndim != 2 or len(given) != n or given.size == 0 or known.shape != (n,):
        raise BadInput(
            f"{model}: {n} {what} need embeddings of shape ({n}, width) and {n} marks of which are "
            f"known, not {given.shape} and {known.shape}. Embed the profiles of this data set."
        )
    rows = np.asarray(given[known], dtype=np.float64)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise BadInput(
            f"{model}: row {np.flatnonzero(known)[bad][0]} of the {what}' embeddings has values "
            "that are not finite. Embed its profile again."
        )
    unit = np.zeros(given.shape)
    if len(rows):
        longest = np.linalg.norm(rows, axis=1).max()
        rows -= rows.mean(axis=0)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit[known] = np.where(norms > _NOISE * longest, rows / np.maximum(norms, 1e-300), 0.0)
    return unit, known


def _semantic(vectors: Floats, reg: float) -> Floats:
    """S: float64 (n_items, n_items), the weights of an EASE whose data are F's coordinates.

    By Woodbury (FFᵀ + ρI)⁻¹ = (I − Q)/ρ with Q = F(FᵀF + ρI)⁻¹Fᵀ, hence S_ij = Q_ij / (1 − Q_jj):
    a system as large as F is wide, not as there are items.
    """
    inner = vectors.T @ vectors
    inner[np.diag_indices_from(inner)] += reg
    weights: Floats = vectors @ np.linalg.solve(inner, vectors.T)
    weights /= 1 - weights.diagonal()
    np.fill_diagonal(weights, 0)
    return weights


def _solve(gram: Floats, reg: float, n_items: int, pull: Floats | None) -> Floats:
    """W of equation 2, float64 (n_inputs, n_items); `gram` is ZᵀZ, overwritten, `pull` is M."""
    gram[np.diag_indices_from(gram)] += reg
    weights = _inverse(gram)[:, :n_items]
    if pull is None:
        weights /= -weights.diagonal()
    else:
        pulled = weights @ pull
        pulled *= reg
        weights *= -(1 + pulled.diagonal()) / weights.diagonal()
        weights += pulled
    np.fill_diagonal(weights, 0)
    return weights


def _inverse(matrix: Floats) -> Floats:
    """Inverse of a symmetric positive definite matrix, by Cholesky, in its own memory."""
    # The transposed view is in LAPACK's order, so that nothing is copied.
    factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
    if failed:
        raise BadInput("EASE: reg_weight is too small for these interactions. Raise it.")
    inverse: Floats = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
    inverse += np.tril(inverse, -1).T
    return inverse.T
