"""iALS: matrix factorisation of implicit feedback by alternating least squares.

iALS (Hu et al. 2008; here as Rendle et al. 2021, "Revisiting the performance of iALS on item
recommendation benchmarks", sections 2 and 3) draws the product of user and item vectors to 1
where there is an interaction S and, with the small weight α₀, to 0 for all pairs:

    Σ_(u,i)∈S (⟨w_u, h_i⟩ − 1)² + α₀ Σ_u,i ⟨w_u, h_i⟩² + Σ_u λ_u ‖w_u‖² + Σ_i λ_i ‖h_i‖²,    (1)

where λ_u = λ(n_u + α₀·n_items)^ν for a user with n_u interactions, and likewise λ_i. While one
side's vectors are held, each vector of the other side is a ridge regression:

    w_u = (Σ_i∈S_u h_i h_iᵀ + α₀HᵀH + λ_u I)⁻¹ (Σ_i∈S_u h_i + λ_u p_u),                      (2)

with the prior mean p_u = 0. A sweep solves all users, then all items.

Knowledge is a learned prior: the prior mean of an item with the embedding t_i is α·t_i A, and A is
the ridge regression of the vectors on the embeddings, refitted before each solve:

    A = argmin Σ_i λ_i ‖h_i − t_i A‖² + ρ·λ̄·‖A‖²,                                           (3)

with λ̄ the mean of λ_i and ρ the setting `prior_reg`. An item's penalty in (1) is then
(1−α)λ_i‖h_i‖² + αλ_i‖h_i − t_i A‖², as in L3AE (see `closed_form`): α is the knowledge's share.
Since A is learned, embeddings may have any axes and any width; they are centred and brought to
unit length. The prior mean of what has no embedding is 0. Users' embeddings act likewise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.arrow import Floats, Ints, codes, distinct, positions
from models.errors import BadInput
from models.recommenders.closed_form import SideInformation, unit_vectors
from models.recommenders.hyperparameters import hyperparameters
from models.schemas import ITEM, USER

_CELLS = 1 << 13
"""Interactions whose vectors are gathered at a time: those of 64 columns stay in a core's cache."""
_ROWS = 128
SWEEPS = 10
"""By then, validation no longer rises on MovieLens."""


@dataclass(frozen=True)
class Rows:
    """One side's rows in groups of like length, and their weights of regularisation.

    Attributes:
        groups: per group the rows, int64 (n,), and their columns, int64 (n, longest), padded
            with column 0.
        reg: float32 (n_rows,), λ_u of each row.
    """

    groups: list[tuple[Tensor, Tensor]]
    reg: Tensor

    @classmethod
    def of(
        cls,
        rows: Ints,
        columns: Ints,
        shape: tuple[int, int],
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> Self:
        """Group pairs by row; `shape` counts id 0 of both sides, which is padding."""
        counts = np.bincount(rows, minlength=shape[0])
        sorted_columns = np.append(columns[np.argsort(rows, kind="stable")], 0)
        starts = np.cumsum(counts) - counts
        longest_first = 1 + np.argsort(-counts[1:], kind="stable")
        groups, done = [], 0
        while done < len(longest_first):
            longest = int(max(counts[longest_first[done]], 1))
            some = longest_first[done : done + min(max(_CELLS // longest, 1), _ROWS)]
            place = np.arange(longest)
            cells = np.where(place < counts[some, None], starts[some, None] + place, -1)
            padded = torch.from_numpy(sorted_columns[cells])
            groups.append((torch.from_numpy(some).to(device), padded.to(device)))
            done += len(some)
        weight = counts + settings["unobserved_weight"] * (shape[1] - 1)
        reg = settings["reg_weight"] * weight ** settings["reg_exponent"]
        return cls(groups, torch.from_numpy(reg.astype(np.float32)).to(device))


class Prior:
    """What one side's vectors are drawn to: 0, or what their embeddings foretell.

    Attributes:
        alpha: the knowledge's share, from 0 to 1.
        embeddings: float32 (n_rows, width), centred unit vectors, zero where unknown; None where
            the prior mean is 0.
        reg: float32 (n_rows,), λ of each row.
        map_reg: ρ of equation 3.
    """

    def __init__(self, alpha: float, embeddings: Floats, reg: Tensor, map_reg: float) -> None:
        self.alpha, self.reg, self.map_reg = alpha, reg, map_reg
        known = torch.from_numpy(embeddings.astype(np.float32)).to(reg.device)
        self.embeddings = known if alpha > 0 and known.any() else None
        self._systems: dict[torch.dtype, tuple[Tensor, Tensor, Tensor]] = {}

    def foretold(self, vectors: Tensor) -> tuple[Tensor, Tensor] | None:
        """What the embeddings foretell of vectors, tA, float (n_rows, width), and A."""
        if self.embeddings is None:
            return None
        if vectors.dtype not in self._systems:  # the same in every sweep, and dear
            known = self.embeddings.to(vectors)
            weighed = known * (self.reg / self.reg[1:].mean()).to(vectors)[:, None]
            system = weighed.T @ known
            system.diagonal().add_(self.map_reg)
            self._systems[vectors.dtype] = known, weighed, system
        known, weighed, system = self._systems[vectors.dtype]
        fitted = torch.linalg.solve(system, weighed.T @ vectors)
        return known @ fitted, fitted

    def mean(self, vectors: Tensor) -> Tensor | None:
        """The prior means, float (n_rows, width); None for 0."""
        found = self.foretold(vectors)
        return None if found is None else self.alpha * found[0]

    def penalty(self, vectors: Tensor) -> Tensor:
        """These vectors' part of the objective (1), a scalar."""
        reg, found = self.reg.to(vectors), self.foretold(vectors)
        norms = (reg * vectors.square().sum(dim=1)).sum()
        if found is None:
            return norms
        missed = (reg * (vectors - found[0]).square().sum(dim=1)).sum()
        ridge = self.map_reg * reg[1:].mean() * found[1].square().sum()
        return torch.lerp(norms, missed + ridge, self.alpha)


class Ials(nn.Module):
    """iALS as a module that is swept, scored and saved.

    Attributes:
        user_factors: float32 (n_users, width), row 0 zero.
        item_factors: float32 (n_items, width), likewise.
    """

    user_factors: nn.Parameter
    item_factors: nn.Parameter

    def __init__(
        self,
        users: Ints,
        items: Ints,
        shape: tuple[int, int],
        settings: Mapping[str, Any],
        seed: int,
        device: torch.device,
    ) -> None:
        """Draw the first vectors from N(0, σ/√width), σ being the setting `init_scale`.

        Training pairs are by internal ids, int64 (n,) each; `shape` counts ids with padding.
        """
        super().__init__()
        self._pairs, self._shape, self._settings = (users, items), shape, settings
        generator = torch.Generator("cpu").manual_seed(seed)
        width = settings["embedding_size"]
        for name, n in zip(("user_factors", "item_factors"), shape, strict=True):
            drawn = torch.randn(n, width, generator=generator, device="cpu")
            drawn *= settings["init_scale"] / width**0.5
            drawn[0] = 0
            self.register_parameter(name, nn.Parameter(drawn.to(device), requires_grad=False))
        self._rows = (
            Rows.of(users, items, shape, settings, device),
            Rows.of(items, users, shape[::-1], settings, device),
        )
        self.take_prior(0.0, SideInformation())

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Draw vectors to what `side` foretells, with the share `alpha`; see `unit_vectors`."""
        users, _ = unit_vectors("iALS", "users", side.users, side.users_known, self._shape[0])
        items, _ = unit_vectors("iALS", "items", side.items, side.items_known, self._shape[1])
        map_reg = self._settings["prior_reg"]
        self._priors = (
            Prior(alpha, users, self._rows[0].reg, map_reg),
            Prior(alpha, items, self._rows[1].reg, map_reg),
        )

    @torch.no_grad()
    def sweep(self) -> None:
        """Solve all users, then all items: the objective (1) never rises; errors as `solve`."""
        factors = self.user_factors, self.item_factors
        for own, rows, prior, other in zip(
            factors, self._rows, self._priors, factors[::-1], strict=True
        ):
            own.copy_(solve(rows, other, self._settings["unobserved_weight"], prior.mean(own)))

    @torch.no_grad()
    def objective(self) -> float:
        """The objective (1) with the penalties that the priors give it."""
        users, items = self.user_factors, self.item_factors
        missed = torch.zeros((), dtype=torch.float64, device=users.device)
        for some, columns in self._rows[0].groups:
            products = (items[columns] @ users[some][:, :, None])[:, :, 0]
            missed += ((products - 1).square() * (columns > 0)).sum()
        products = (users.T @ users) * (items.T @ items)
        everywhere = self._settings["unobserved_weight"] * products.sum()
        penalties = self._priors[0].penalty(users) + self._priors[1].penalty(items)
        return float(missed + everywhere + penalties)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score all items for users, as RecBole's models do: float32 (n, n_items)."""
        return self.user_factors[interaction[USER]] @ self.item_factors.T

    def predict(self, interaction: Any) -> Tensor:
        """Score user-item pairs, as RecBole's models do: float32 (n,)."""
        users, items = self.user_factors[interaction[USER]], self.item_factors[interaction[ITEM]]
        return (users * items).sum(dim=1)


def log_factors(train: pa.Table, subjects: pa.Array, key: str, seed: int, width: int) -> Floats:
    """Learn vectors of `subjects` from interactions alone, with the default settings.

    `train` has the schema `INTERACTIONS`; `key`, `USER` or `ITEM`, says which of them they are.

    Returns:
        float64 (n, width), a zero row where there is no interaction.
    """
    users, items = codes(train[USER]) + 1, codes(train[ITEM]) + 1
    shape = int(users.max()) + 1, int(items.max()) + 1
    settings = hyperparameters("iALS", {"embedding_size": width})
    module = Ials(users, items, shape, settings, seed, torch.device("cpu"))
    for _ in range(SWEEPS):
        module.sweep()
    learned = module.user_factors if key == USER else module.item_factors
    rows = positions(subjects, distinct(train[key]))
    found: Floats = learned.numpy()[rows + 1].astype(np.float64)
    return found


def solve(rows: Rows, fixed: Tensor, unobserved: float, mean: Tensor | None = None) -> Tensor:
    """Solve equation 2 for every row of one side: float (n_rows, width), row 0 zero.

    `fixed` are the other side's vectors, float (n_columns, width), row 0 zero, `unobserved` is α₀,
    and `mean` the prior means, float (n_rows, width), or None for 0.

    Raises:
        BadInput: if a system is singular.
    """
    spread, frame = torch.linalg.eigh(unobserved * (fixed.T @ fixed))
    turned = fixed @ frame  # in this frame, what all rows share is diagonal
    means = None if mean is None else mean @ frame
    solved = torch.zeros(len(rows.reg), fixed.shape[1], dtype=fixed.dtype, device=fixed.device)
    for some, columns in rows.groups:
        reg = rows.reg[some].to(fixed)[:, None]
        vectors = turned[columns]
        wanted = vectors.sum(dim=1)
        if means is not None:
            wanted += reg * means[some]
        solved[some] = _ridge(vectors, spread.clamp(min=0) + reg, wanted)
    turned_back: Tensor = solved @ frame.T
    return turned_back


def _ridge(vectors: Tensor, diagonal: Tensor, wanted: Tensor) -> Tensor:
    """Solve (VᵀV + D)w = b, each row its own: float (n, width).

    V is (n, longest, width), the diagonal of D and b are (n, width). With fewer interactions than
    columns, Woodbury's identity leaves a system as large as they are many:
    w = D⁻¹(b − Vᵀ(I + VD⁻¹Vᵀ)⁻¹VD⁻¹b).
    """
    if vectors.shape[1] >= vectors.shape[2]:
        system = vectors.mT @ vectors
        system.diagonal(dim1=1, dim2=2).add_(diagonal)
        return _cholesky_solve(system, wanted)
    scaled = vectors / diagonal[:, None]
    system = scaled @ vectors.mT
    system.diagonal(dim1=1, dim2=2).add_(1)
    inner = _cholesky_solve(system, (scaled @ wanted[:, :, None])[:, :, 0])
    return wanted / diagonal - (inner[:, None] @ scaled)[:, 0]


def _cholesky_solve(systems: Tensor, wanted: Tensor) -> Tensor:
    factors, failed = torch.linalg.cholesky_ex(systems)
    if failed.any():
        raise BadInput("models.iALS.hyperparameters.reg_weight: too small to solve for. Raise it.")
    solved: Tensor = torch.cholesky_solve(wanted[:, :, None], factors)
    return solved[:, :, 0]
