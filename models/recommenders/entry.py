"""What the package knows of a model: a row of the registry, or what an own class says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.config import Side, Tap

Family = Literal["general", "context-aware", "sequential"]
Loader = Literal[
    "pairwise", "pointwise", "users", "labelled", "sequences", "masked", "sweeps", "elsewhere"
]
LOADERS: tuple[Loader, ...] = ("pairwise", "pointwise", "users")
"""Of plain modules."""


@dataclass(frozen=True)
class Entry:
    """One supported model.

    Attributes:
        family: RecBole's model family.
        loader: pairwise: (user, item, negative item); pointwise: (user, item, label) with
            sampled negatives; users: whole users, as RecBole feeds its autoencoders; sequences:
            (user, items so far, next item); masked: (user, items with some hidden); sweeps: no
            batches, since an epoch solves for all vectors; elsewhere: only rankings are known.
            None for a model that is computed at once.
        tap: default tap point of users: the user's vector that is scored.
        item_tap: likewise for items; None where the model has no vector per item.
        takes_embeddings: whether knowledge enters the model's equations whole, not at a tap.
        float32_only: why its loss cannot be computed in mixed precision; None if it can.
        draws: whether a computed model depends on the seed.
        own: one's own class, named by import path; None for a model that ships.
        kin: the model of RecBole that it is or extends, whose special training it shares.
        defaults: an own class's hyper-parameters; None marks one without a default.
    """

    family: Family
    loader: Loader | None
    tap: Tap | None = None
    item_tap: Tap | None = None
    takes_embeddings: bool = False
    float32_only: str | None = None
    draws: bool = False
    own: type | None = None
    kin: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it is an own torch module, to which RecBole is unknown."""
        return self.own is not None and self.kin is None

    @property
    def is_stochastic(self) -> bool:
        """Whether two seeds give two models, so that one training decides nothing."""
        return self.loader is not None or self.draws

    @property
    def by_gradient(self) -> bool:
        """Whether it is trained by gradient, so that a layer can be drawn to targets."""
        return self.loader not in (None, "sweeps", "elsewhere")

    def default_tap(self, side: Side) -> Tap | None:
        """Return the side's default tap."""
        return self.tap if side == "users" else self.item_tap


@dataclass(frozen=True)
class TapPoint:
    """Where one side's knowledge enters a model.

    Attributes:
        tap: None where a model takes the embeddings as they are.
        width: of the tapped layer; None likewise.
    """

    tap: Tap | None
    width: int | None
