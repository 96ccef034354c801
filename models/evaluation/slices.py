"""Slices of users and items.

Slices depend on the training part and on the users with a profile, so that all arms share them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Ints, positions
from models.config import Evaluation
from models.evaluation.user_scores import UserValues, score, score_clicks
from models.schemas import ITEM, USER

HEAD_SHARE = 0.8
"""Share of the training interactions that the head's items hold."""

Kind = Literal["history", "popularity", "profile"]


@dataclass(frozen=True)
class Slice:
    """A part of the users, or of the held-out items.

    Attributes:
        kind: history: users by their training interactions; popularity: held-out items by
            theirs; profile: users with or without one.
        name: `1 coldest` to `4 heaviest`, `head` and `tail`, `with` and `without`.
        low: fewest training interactions of a user (item) in the slice; None for profile.
        high: most.
    """

    kind: Kind
    name: str
    low: int | None
    high: int | None


def spanning(slices: Iterable[Slice]) -> dict[tuple[Kind, str], Slice]:
    """Merge slices of equal kind and name, whose bounds differ between splits."""
    found: dict[tuple[Kind, str], Slice] = {}
    for part in slices:
        known = found.setdefault((part.kind, part.name), part)
        if part.low is not None and known.low is not None:
            low = min(part.low, known.low)
            high = max(part.high or 0, known.high or 0)
            found[part.kind, part.name] = replace(part, low=low, high=high)
    return found


Slicing = dict[str, dict[Slice, pa.Array]]
"""The ids of every slice: under `USER` of users, under `ITEM` of items."""

_QUARTERS = ("1 coldest", "2", "3", "4 heaviest")


def slicing(train: pa.Table, items: pa.Array, profiled: pa.Array | None) -> Slicing:
    """Divide the users of `train`, schema `INTERACTIONS`, and the items of the whole catalogue.

    Users of equal counts stay together, so that quarters may be unequal or missing. The head are
    the fewest items that hold `HEAD_SHARE` of the interactions; the tail includes those without
    any. `profiled` are users with a profile; None where no user profiles are transferred.
    """
    users, counts = _counted(train[USER])
    quarter = np.searchsorted(np.quantile(counts, [0.25, 0.5, 0.75]), counts)
    quarters = {name: np.flatnonzero(quarter == n) for n, name in enumerate(_QUARTERS)}
    user_slices = _bounded("history", users, counts, quarters)
    if profiled is not None:
        has = pc.is_in(users, profiled)
        for name, mask in (("with", has), ("without", pc.invert(has))):
            if pc.any(mask).as_py():
                user_slices[Slice("profile", name, None, None)] = users.filter(mask)
    holders = holders_of(items, train)
    order = np.argsort(-holders, kind="stable")
    held = holders[order].cumsum()
    size = int(np.searchsorted(held, HEAD_SHARE * held[-1] - 1e-9)) + 1
    parts = {"head": order[:size], "tail": order[size:]}
    return {USER: user_slices, ITEM: _bounded("popularity", items, holders, parts)}


def _counted(ids: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Different ids in order, and how often each is there."""
    counted = pc.value_counts(ids.combine_chunks())
    table = pa.table({"id": counted.field("values"), "n": counted.field("counts")}).sort_by("id")
    return table["id"].combine_chunks(), np.asarray(table["n"], dtype=np.int64)


def holders_of(items: pa.Array, train: pa.Table) -> Ints:
    """How many training interactions each item has: int64 (n_items,)."""
    ids, counts = _counted(train[ITEM])
    places = positions(items, ids)
    return np.where(places >= 0, counts[places], 0)


def _bounded(
    kind: Kind, ids: pa.Array, counts: Ints, parts: dict[str, Ints]
) -> dict[Slice, pa.Array]:
    """Slices of ids at the given places, none empty, with their fewest and most interactions."""
    return {
        Slice(kind, name, int(counts[places].min()), int(counts[places].max())): ids.take(
            pa.array(places)
        )
        for name, places in parts.items()
        if len(places)
    }


def sliced(
    values: UserValues, rankings: pa.Table, held: pa.Table, parts: Slicing, config: Evaluation
) -> dict[Slice, UserValues]:
    """Score a run on test slice by slice; slices without scored users are left out.

    A slice of items counts only its own held-out items as relevant, in rankings of all items.
    `values` are those of all users, `rankings` and `held` have the schemas `RANKINGS` and
    `INTERACTIONS`.
    """
    found = {}
    for part, users in parts[USER].items():
        inside = np.isin(values.users, np.asarray(users.to_numpy(zero_copy_only=False), np.str_))
        if inside.any():
            found[part] = values.where(inside)
    scored = held.filter(pc.is_in(held[USER], pa.array(values.users, pa.string())))
    for part, items in parts[ITEM].items():
        relevant = scored.filter(pc.is_in(scored[ITEM], items))
        if relevant.num_rows:
            found[part] = score(rankings, relevant, "test", config)
    return found


def sliced_clicks(
    predictions: pa.Table, parts: Slicing, config: Evaluation
) -> dict[Slice, UserValues]:
    """Compute AUC and LogLoss on test in each slice, among the pairs of its users or its items.

    Slices with likes only, or none, are left out: they have no AUC. `predictions` has the schema
    `PREDICTIONS`.
    """
    found = {}
    for column, slices in parts.items():
        for part, ids in slices.items():
            inside = predictions.filter(pc.is_in(predictions[column], ids))
            if len(pc.unique(inside["liked"])) == 2:
                found[part] = score_clicks(inside, "test", config)
    return found
