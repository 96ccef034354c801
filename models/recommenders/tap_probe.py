"""Find a model's tap points before anything is trained, on a toy data set."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from models.config import Side, Tap
from models.errors import BadInput, cut
from models.recommenders.entry import TapPoint
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.recommenders.registry import entry
from models.recommenders.teaching import graded_scores
from models.schemas import GENRES, YEAR
from models.transfer.hooks import HookManager, Sighting, did_not_fire, survey

TOY_LOG = Log(
    users=[f"u{n // 6}" for n in range(144)],
    items=[f"i{(n // 6 * 5 + n % 6 * 2) % 30}" for n in range(144)],
)
TOY_UNIVERSE = Universe(
    users=[f"u{n}" for n in range(24)],
    items=[f"i{n}" for n in range(30)],
    of_items={
        YEAR: [str(1990 + n % 5) for n in range(30)],
        GENRES: [["a", "b"][: n % 3] for n in range(30)],
    },
)


def toy(model: str, given: Mapping[str, Any], universe: Universe = TOY_UNIVERSE) -> Recommender:
    """Build `model` on 24 users and 30 items, for training; BadInput for what is wrong with it."""
    drawn = random.getstate()  # Prefect draws its server's port: runs with one seed would share it
    with _blaming(model, given):
        built = Recommender(model, given, TOY_LOG, universe, seed=0)
    random.setstate(drawn)
    built.module.train()
    return built


@contextmanager
def _blaming(model: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Blame errors of a toy model, which works with RecBole's defaults, on the values given."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if not given:
            raise
        values = ", ".join(f"{key} {cut(repr(value))}" for key, value in given.items())
        raise BadInput(
            f"models.{model}.hyperparameters: {model} cannot work with {values}. Remove "
            "them one by one to find which."
        ) from error


def probe(
    model: str,
    given: Mapping[str, Any],
    tap: Tap | None = None,
    side: Side = "users",
    teaches: bool = False,
    starts: bool = False,
) -> TapPoint | None:
    """Find where a side's knowledge enters `model`: the given tap, or the registry's default.

    None for a model that knowledge cannot enter, since it is computed at once. `teaches` and
    `starts` (a table from the targets) are what the alignment does. Raises BadInput for
    whatever is wrong with the model, its hyper-parameters or the tap.
    """
    row = entry(model)
    if row.by_gradient and not row.takes_embeddings:
        if teaches:
            return _taught(model, given)
        return TapPoint(*tapped_layer(model, given, tap, side, starts))
    toy(model, given)
    if tap is not None:
        raise BadInput(f"models.{model}.tap: {model} has no layers to align. Remove it.")
    return TapPoint(None, None) if row.takes_embeddings else None


def _taught(model: str, given: Mapping[str, Any]) -> TapPoint:
    """No tap, if the model has what the alignment `teacher` draws: scores of all items."""
    small = toy(model, given)
    try:
        graded_scores(small, torch.arange(1, 5))
    except NotImplementedError as error:
        raise BadInput(
            f"models.{model}: alignment teacher draws scores of all items at once, which {model} "
            f"does not give. Set models.{model}.transfer.alignment to another."
        ) from error
    return TapPoint(None, None)


def tapped_layer(
    model: str,
    given: Mapping[str, Any],
    tap: Tap | None = None,
    side: Side = "users",
    starts: bool = False,
) -> tuple[Tap, int]:
    """Run a trained model's tap once on toy data, and read its width; for errors see `probe`."""
    small = toy(model, given)
    tap = tap or small.entry.default_tap(side)
    if tap is None:
        other, key = ("items", "tap") if side == "users" else ("users", "item_tap")
        fires = ", ".join(f"{seen.kind} {seen.name}" for seen in sightings(small) if seen.rows)
        raise BadInput(
            f"models.{model}: it has no default tap for {side}. Set the model's transfer.side to "
            f"{other}, or its {key} to one of {fires}."
        )
    hooks = HookManager(small.module, tap)
    if starts:
        hooks.starting_table(model, side)
    batch = next(iter(small.batches()))
    with _blaming(model, given), hooks.recording():
        small.loss(batch).backward()
    captured = hooks.take()
    if captured is None:
        raise did_not_fire(model, small.module, tap, lambda: small.loss(batch))
    return tap, captured.vectors.shape[1]


def sightings(recommender: Recommender) -> list[Sighting]:
    """List everything that fires while the loss of one batch is computed."""
    batch = next(iter(recommender.batches()))
    return survey(recommender.module, lambda: recommender.loss(batch))
