"""For whom and with what a model does well: slices of users and items, coverage and novelty.

Slices are made from the training part and from who has a profile, so that all arms share them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Slicing:
    """All slices of a data set: ids of users, and of items."""

    users: dict[Slice, pa.Array]
    items: dict[Slice, pa.Array]


_QUARTILES = ("1 coldest", "2", "3", "4 heaviest")


def slicing(train: pa.Table, items: pa.Array, profiled: pa.Array | None) -> Slicing:
    """Divide users and items.

    Args:
        train: schema `INTERACTIONS`, the training part.
        items: ids of the whole catalogue; the tail includes those without training interactions.
        profiled: ids of users with a profile; None where no user profiles are transferred.
    """
    users = dict(_quartiles(*_counted(train[USER])))
    if profiled is not None:
        everyone = pc.unique(train[USER])
        has = pc.is_in(everyone, profiled)
        users[Slice("profile", "with", None, None)] = everyone.filter(has)
        users[Slice("profile", "without", None, None)] = everyone.filter(pc.invert(has))
    return Slicing(
        {part: ids for part, ids in users.items() if len(ids)},
        dict(_head_and_tail(items, _holders(items, train))),
    )


def _counted(ids: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Different ids in order, and how often each is there."""
    counted = pc.value_counts(ids.combine_chunks())
    table = pa.table({"id": counted.field("values"), "n": counted.field("counts")}).sort_by("id")
    return table["id"].combine_chunks(), np.asarray(table["n"], dtype=np.int64)


def _holders(items: pa.Array, train: pa.Table) -> NDArray[np.int64]:
    """How many training interactions each item has: int64 (n_items,)."""
    ids, counts = _counted(train[ITEM])
    places = np.asarray(pc.fill_null(pc.index_in(items, ids), -1), dtype=np.int64)
    return np.where(places >= 0, counts[places], 0)


def _quartiles(ids: pa.Array, counts: NDArray[np.int64]) -> Iterator[tuple[Slice, pa.Array]]:
    """Users of equal counts stay together, so that quarters are not always equal; none is empty."""
    quarter = np.searchsorted(np.quantile(counts, [0.25, 0.5, 0.75]), counts)
    for number, name in enumerate(_QUARTILES):
        inside = quarter == number
        if inside.any():
            yield _bounded("history", name, counts[inside]), ids.filter(pa.array(inside))


def _head_and_tail(ids: pa.Array, counts: NDArray[np.int64]) -> Iterator[tuple[Slice, pa.Array]]:
    """The fewest items that hold `HEAD_SHARE` of the interactions, and the rest."""
    order = np.argsort(-counts, kind="stable")
    held = counts[order].cumsum()
    size = int(np.searchsorted(held, HEAD_SHARE * held[-1] - 1e-9)) + 1
    for name, places in (("head", order[:size]), ("tail", order[size:])):
        if len(places):
            yield _bounded("popularity", name, counts[places]), ids.take(pa.array(places))


def _bounded(kind: Kind, name: str, counts: NDArray[np.int64]) -> Slice:
    return Slice(kind, name, int(counts.min()), int(counts.max()))


def sliced(
    values: UserValues, rankings: pa.Table, held: pa.Table, parts: Slicing, config: Evaluation
) -> dict[Slice, UserValues]:
    """A run's values on test, slice by slice; slices that nobody is scored in are left out.

    A slice of items counts only its own held-out items as relevant, in rankings of all items.

    Args:
        values: of all users.
        rankings: schema `RANKINGS`.
        held: schema `INTERACTIONS`, the test part.
        parts: the slices.
        config: metrics and cut-offs.
    """
    found = {}
    for part, users in parts.users.items():
        inside = np.isin(values.users, np.asarray(users.to_numpy(zero_copy_only=False), np.str_))
        if inside.any():
            found[part] = UserValues(
                values.users[inside], {key: of[inside] for key, of in values.values.items()}
            )
    scored = held.filter(pc.is_in(held[USER], pa.array(values.users, pa.string())))
    for part, items in parts.items.items():
        relevant = scored.filter(pc.is_in(scored[ITEM], items))
        if relevant.num_rows:
            found[part] = score(rankings, relevant, "test", config)
    return found


def sliced_clicks(
    predictions: pa.Table, parts: Slicing, config: Evaluation
) -> dict[Slice, UserValues]:
    """AUC and LogLoss on test, slice by slice, each among the pairs of its users or its items.

    Slices without a like, or with nothing else, are left out: nothing can be told apart there.

    Args:
        predictions: schema `PREDICTIONS`, of the test part.
        parts: the slices.
        config: metrics.
    """
    found = {}
    for column, of_column in ((USER, parts.users), (ITEM, parts.items)):
        for part, ids in of_column.items():
            inside = predictions.filter(pc.is_in(predictions[column], ids))
            if len(pc.unique(inside["liked"])) == 2:
                found[part] = score_clicks(inside, "test", config)
    return found


@dataclass(frozen=True)
class Catalogue:
    """Every item that could be recommended, and how surprising it is.

    Attributes:
        items: string (n_items,).
        surprise: float64 (n_items,), -log2 of the share of training users who have the item,
            in bits (Zhou et al., PNAS 107, 2010); an item that nobody has counts as if one had.
    """

    items: pa.Array
    surprise: NDArray[np.float64]

    @classmethod
    def of(cls, items: pa.Array, train: pa.Table) -> "Catalogue":
        """The catalogue with its popularity in the training part."""
        n_users = len(pc.unique(train[USER]))
        return cls(items, -np.log2(np.maximum(_holders(items, train), 1) / n_users))


def beyond_accuracy(
    rankings: pa.Table, split: str, catalogue: Catalogue, ks: tuple[int, ...]
) -> dict[tuple[str, int], float]:
    """Coverage and novelty of what is recommended to all users, at every cut-off.

    Coverage is the share of the catalogue that is recommended to anyone; novelty the mean over
    users of the mean surprise of the items recommended to them, in bits.

    Args:
        rankings: schema `RANKINGS`.
        split: which rankings to take.
        catalogue: all items.
        ks: cut-offs.
    """
    lists = rankings.filter(pc.equal(rankings["split"], split))["items"].combine_chunks()
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    codes = np.asarray(pc.index_in(lists.flatten(), catalogue.items), dtype=np.int64)
    owners = np.repeat(np.arange(len(lists)), lengths)
    ranks = np.arange(len(codes)) - np.repeat(lengths.cumsum() - lengths, lengths)
    found: dict[tuple[str, int], float] = {}
    for k in ks:
        shown = ranks < k
        bits = np.bincount(owners[shown], catalogue.surprise[codes[shown]], len(lists))
        served = lengths > 0
        recommended = np.bincount(codes[shown], minlength=len(catalogue.items)) > 0
        found["coverage", k] = float(recommended.mean())
        found["novelty", k] = float((bits[served] / np.minimum(lengths[served], k)).mean())
    return found
