"""Looks into models before anything is trained: where knowledge enters, and how wide it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.config import Side, Tap
from models.errors import BadInput
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.transfer.hooks import HookManager, Sighting, survey


def toy(model: str, given: Mapping[str, Any]) -> Recommender:
    """`model` on a data set of 24 users and 30 items, in training mode.

    Raises:
        BadInput: for whatever is wrong with the model or its hyper-parameters.
    """
    users = [f"u{n // 6}" for n in range(144)]
    items = [f"i{(n // 6 * 5 + n % 6 * 2) % 30}" for n in range(144)]
    universe = Universe(
        [f"u{n}" for n in range(24)],
        [f"i{n}" for n in range(30)],
        years=[str(1990 + n % 5) for n in range(30)],
        genres=[["a", "b"][: n % 3] for n in range(30)],
    )
    built = Recommender(model, given, Log(users, items), universe, seed=0)
    built.module.train()
    return built


@dataclass(frozen=True)
class Entrance:
    """Where one side's knowledge enters a model.

    Attributes:
        tap: None where a computed model takes the embeddings as they are.
        width: of the tapped layer; None likewise.
    """

    tap: Tap | None
    width: int | None


def probe(
    model: str, given: Mapping[str, Any], tap: Tap | None = None, side: Side = "users"
) -> Entrance | None:
    """Build `model` on a toy data set and run its tap once.

    Returns:
        The tap (the zoo's default if none is given) and the width that it yields; None for a
        model that knowledge cannot enter, since it is computed rather than trained.

    Raises:
        BadInput: for whatever is wrong with the model, its hyper-parameters or the tap.
    """
    small = toy(model, given)
    if small.entry.loader is None:
        if tap is not None:
            raise BadInput(f"models.{model}.tap: {model} is computed without layers; remove it")
        return Entrance(None, None) if small.entry.takes_embeddings else None
    tap = tap or small.entry.default_tap(side)
    if tap is None:
        raise BadInput(
            f"models.{model}: {model} has no vector per item, so that items' profiles have no "
            f"default tap; set models.{model}.transfer.side to users, or models.{model}.item_tap"
        )
    hooks = HookManager(small.module, tap)
    with hooks.recording():
        small.loss(next(iter(small.batches())))
    captured = hooks.take()
    if captured is None:
        fired = ", ".join(f"{s.kind} {s.name}" for s in sightings(small) if s.rows)
        raise BadInput(
            f"models.{model}: the {tap.kind} {tap.name} does not fire while the loss is computed, "
            f"so there is nothing to align; what does: {fired}"
        )
    return Entrance(tap, captured.vectors.shape[1])


def sightings(recommender: Recommender) -> list[Sighting]:
    """Everything that fires while the loss of one batch is computed."""
    batch = next(iter(recommender.batches()))
    return survey(recommender.module, lambda: recommender.loss(batch))
