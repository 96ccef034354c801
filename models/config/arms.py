"""The arms of a comparison, one row each; all that depends on an arm follows from its row.

To add a control, add a row to `ARMS` with the function that makes its targets, or name one's own
function, or `Arm`, by import path in `training.arms`. A control holds no
profile: if a shuffled or a random target helps as much, the loss regularises; if the history's own
SVD does, the profile says no more than the log.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa

from models.arrow import Floats, Singles, distinct, incidence, words
from models.config.plugins import Table, checked, numbers
from models.config.section import named
from models.errors import BadInput
from models.schemas import GENRES, ITEM, USER

BASELINE, TRANSFER, SHUFFLED = "baseline", "transfer", "shuffled"
_FACTORS = 64
_DEEP = ("DeepFM", "DCN", "AutoInt")


@dataclass(frozen=True)
class ControlInputs:
    """What a control's targets can be made of.

    Attributes:
        targets: float32 (n, width), of the profiles.
        key: `USER` or `ITEM`.
        subjects: the users or items of the rows, n.
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
        seed: the training's, with which random targets are drawn anew.
        fixed_seed: for what is the same in all trainings.
        standardise: centres and scales float64 (n, any width) as the configuration says, and
            reduces or rotates it to float32 (n, width).
        metadata: makes vectors of genres and years, float (n, any width).
        factors: makes iALS' vectors, float (n, columns), of the training part alone.
    """

    targets: Singles
    key: str
    subjects: list[str]
    train: pa.Table
    items: pa.Table
    seed: int
    fixed_seed: int
    standardise: Callable[[Floats], Singles]
    metadata: Callable[[], Floats]
    factors: Callable[[int], Floats]


@dataclass(frozen=True)
class Arm:
    """One way to train a model.

    Attributes:
        name: as in `training.arms`, the results and the report.
        takes: how knowledge enters the training: as targets of the transfer loss, as whole
            embeddings among the model's features, as thoughts of examples, or not at all.
        colour: of its lines in charts.
        dash: likewise, so that lines differ without colour.
        make_targets: makes a control's targets, float32 (n, width), in place of the profiles'.
        shuffles_items: whether the item vectors that users are the mean of are permuted before
            targets are made; a control, too.
        knows_profiles: whether anything of the profiles is left in what the training takes.
        models: the only models that have this arm; None means all that knowledge enters.
        settings: of its comparator's section, over what is configured; makes a control, too.
    """

    name: str
    takes: Literal["nothing", "targets", "features", "examples"]
    colour: str
    dash: str = "solid"
    make_targets: Callable[[ControlInputs], Singles] | None = None
    shuffles_items: bool = False
    knows_profiles: bool = True
    models: tuple[str, ...] | None = None
    settings: Mapping[str, bool] = field(default_factory=dict, hash=False)

    @property
    def takes_whole(self) -> bool:
        """Whether it takes whole embeddings of both sides, whatever is tapped."""
        return self.takes in ("features", "examples")

    @property
    def is_control(self) -> bool:
        """Whether it tells knowledge from regularisation, rather than transfers any."""
        return self.make_targets is not None or self.shuffles_items or bool(self.settings)

    @property
    def is_treatment(self) -> bool:
        """Whether it is what an experiment is about: neither baseline nor control."""
        return self.takes != "nothing" and not self.is_control

    def suits(self, model: str, tapped: Collection[object]) -> bool:
        """Whether `model`, which knowledge enters on the sides `tapped`, has this arm."""
        if self.models is not None:
            return model in self.models
        return self.takes == "nothing" or bool(tapped)


def _shuffled(inputs: ControlInputs) -> Singles:
    """Permute the profiles' targets among users (items): float32 (n, width)."""
    return inputs.targets[np.random.default_rng(inputs.seed).permutation(len(inputs.targets))]


def _noise(inputs: ControlInputs) -> Singles:
    """Draw from a Gaussian with the targets' mean and covariance: float32 (n, width)."""
    exact = inputs.targets.astype(np.float64)
    covariance = np.atleast_2d(np.cov(exact, rowvar=False))
    drawn = np.random.default_rng(inputs.seed).multivariate_normal(
        exact.mean(axis=0), covariance, size=len(exact), method="eigh"
    )
    return drawn.astype(np.float32)


def _genre_histogram(inputs: ControlInputs) -> Singles:
    """Shares of genres in each user's training history, or an item's own: float32 (n, width)."""
    genres, names = words(inputs.items, GENRES)
    ids, subjects = inputs.items[ITEM].combine_chunks(), pa.array(inputs.subjects, pa.string())
    if not names:
        raise BadInput(
            "training.arms: genre-histogram needs items with genres and there are none. Set "
            "dataset.genres, or remove the arm."
        )
    of_items = pa.table({USER: ids, ITEM: ids})
    pairs = inputs.train if inputs.key == USER else of_items
    counts = np.asarray((incidence(pairs, subjects, ids) @ genres).todense())
    return inputs.standardise(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))


def _history_svd(inputs: ControlInputs) -> Singles:
    """Singular vectors of the training matrix times singular values: float32 (n, width).

    Left ones for users, right ones for items.
    """
    from scipy.sparse.linalg import svds

    subjects = pa.array(inputs.subjects, pa.string())
    if inputs.key == USER:
        matrix = incidence(inputs.train, subjects, distinct(inputs.train[ITEM]))
    else:
        matrix = incidence(inputs.train, distinct(inputs.train[USER]), subjects).T
    rank = min(inputs.targets.shape[1], min(matrix.shape) - 1)
    start = np.random.default_rng(inputs.fixed_seed).standard_normal(min(matrix.shape))
    left, values, _ = svds(matrix, k=rank, v0=start)
    strongest = np.argsort(-values)
    return inputs.standardise(left[:, strongest] * values[strongest])


def _metadata(inputs: ControlInputs) -> Singles:
    """Genres and years, as `targets.sources` combines them: float32 (n, width)."""
    return inputs.standardise(inputs.metadata())


def _log_factors(inputs: ControlInputs) -> Singles:
    """What iALS, the strongest text-free model, learns of the log: float32 (n, width)."""
    return inputs.standardise(inputs.factors(min(_FACTORS, inputs.targets.shape[1])))


def _own(name: str, found: Any) -> Arm:
    """Make a row of one's own control, whose targets are checked when they are made."""
    row = found if isinstance(found, Arm) else Arm(name, "targets", "#5b6470", "dashdot", found)
    if row.make_targets is None or row.takes != "targets":
        raise BadInput(f"{name}: an own arm is a control. Give its Arm targets and make_targets.")

    def expected(made: Any, inputs: ControlInputs) -> str | None:
        return numbers(made, inputs.targets.shape)

    make_targets = checked(name, "make_targets(inputs)", row.make_targets, expected)
    return replace(row, name=name, make_targets=make_targets)


_SHIPPED: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(BASELINE, "nothing", "#8c97a6", knows_profiles=False),
        Arm(TRANSFER, "targets", "#3a86c8"),
        Arm("kar", "features", "#8c6d31", models=_DEEP),
        Arm(SHUFFLED, "targets", "#c9803c", "dash", _shuffled),
        Arm("kar-shuffled", "features", "#b59a5b", "dash", _shuffled, models=_DEEP),
        Arm("llm-cf", "examples", "#4b5fa6", models=_DEEP),
        Arm("llm-cf-shuffled", "examples", "#7d8cc4", "dash", _shuffled, models=_DEEP),
        Arm(
            "llm-cf-no-thoughts",
            "examples",
            "#7d8cc4",
            "dot",
            models=_DEEP,
            settings={"thoughts": False},
        ),
        Arm("shuffled-items", "targets", "#a8674f", "longdashdot", shuffles_items=True),
        Arm("noise", "targets", "#9472c8", "dot", _noise),
        # A teacher with zeros is text-free.
        Arm(
            "zeros",
            "targets",
            "#b08bb0",
            "longdashdot",
            lambda i: np.zeros_like(i.targets),
            knows_profiles=False,
        ),
        Arm("history-svd", "targets", "#3f9d7d", "dashdot", _history_svd, knows_profiles=False),
        Arm(
            "genre-histogram",
            "targets",
            "#bd6490",
            "longdash",
            _genre_histogram,
            knows_profiles=False,
        ),
        Arm("genres-years", "targets", "#7a8f3c", "longdash", _metadata, knows_profiles=False),
        Arm("log-factors", "targets", "#2f7f91", "dashdot", _log_factors, knows_profiles=False),
    )
}


ARMS = Table(_SHIPPED, _own)

SERVED = tuple(arm.name for arm in ARMS.values() if not arm.is_control and arm.models is None)
"""Arms whose models the nightly flow can publish: they serve every user without text features."""

ArmName = Annotated[str, *named(ARMS)]
if TYPE_CHECKING:
    ServedArm = str
else:
    ServedArm = Literal[SERVED]
