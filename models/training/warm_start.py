"""Starting a training from another one's weights, although users and items have come or gone.

Which axes of which tensors stand for users, items or their features is not declared per model but
seen: a toy model is built again with one user, item, year or genre more, and what grows is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from models.errors import BadInput
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.schemas import GENRES, ITEM, USER, YEAR

Rows = Mapping[str, Sequence[str]]
"""Raw tokens by field, in the order of a model's internal ids, padding first."""

_Label = tuple[str, object]


def rows_of(recommender: Recommender) -> dict[str, list[str]]:
    """The tokens that a model's rows stand for, to be kept beside its weights."""
    return {field: [str(token) for token in of] for field, of in recommender.tokens().items()}


def start_from(recommender: Recommender, weights: Mapping[str, Tensor], rows: Rows) -> None:
    """Give a fresh model another training's weights, matched by raw ids.

    Users, items, years and genres that are new keep their fresh weights.

    Args:
        recommender: the fresh model.
        weights: the other model's, by name.
        rows: what that model's rows stand for, from `rows_of`.

    Raises:
        BadInput: naming the tensor that does not fit, or a model that cannot start warm.
    """
    if recommender.entry.loader is None:
        raise BadInput(f"initial: {recommender.name} is computed; it has no start, leave it empty")
    fields = _fields_of_axes(recommender)
    fresh = recommender.weights()
    for name in sorted(fresh.keys() ^ weights.keys()):
        where = "this model" if name in fresh else "the initial weights"
        raise BadInput(
            f"initial: {recommender.name}'s tensor {name} exists in {where} only; start from a "
            "training of the same model and hyper-parameters, or leave initial empty"
        )
    ours = rows_of(recommender)
    recommender.restore(
        {
            name: _carried(recommender, name, weights[name], value, fields[name], rows, ours)
            for name, value in fresh.items()
        }
    )


def _fields_of_axes(recommender: Recommender) -> dict[str, list[list[str]]]:
    """Per tensor and axis the fields whose tokens it has a place for."""

    def shapes(universe: Universe) -> dict[str, torch.Size]:
        users = [f"u{n // 6}" for n in range(144)]
        items = [f"i{(n // 6 * 5 + n % 6 * 2) % 30}" for n in range(144)]
        built = Recommender(
            recommender.name, recommender.given, Log(users, items), universe, seed=0
        )
        return {name: value.shape for name, value in built.module.state_dict().items()}

    users, items = [f"u{n}" for n in range(24)], [f"i{n}" for n in range(30)]
    years, genres = [str(1990 + n % 5) for n in range(30)], [["a", "b"][: n % 3] for n in range(30)]
    small = Universe(users, items, years, genres)
    if not {YEAR, GENRES} & recommender.tokens().keys():
        small = replace(small, years=(), genres=())
    larger = {
        USER: replace(small, users=[*users, "new"]),
        ITEM: replace(
            small,
            items=[*items, "new"],
            years=small.years and [*years, years[0]],
            genres=small.genres and [*genres, genres[0]],
        ),
        YEAR: replace(small, years=["new", *years[1:]]),
        GENRES: replace(small, genres=[["new"], *genres[1:]]),
    }
    before = shapes(small)
    grown = {field: shapes(larger[field]) for field in recommender.tokens()}
    return {
        name: [
            [field for field in grown if grown[field][name][axis] > size]
            for axis, size in enumerate(shape)
        ]
        for name, shape in before.items()
    }


def _carried(
    recommender: Recommender,
    name: str,
    old: Tensor,
    fresh: Tensor,
    fields: list[list[str]],
    rows: Rows,
    our_rows: Rows,
) -> Tensor:
    """`fresh`, with all that `old` knows about the same tokens."""
    problem = f"initial: {recommender.name}'s tensor {name} is {tuple(old.shape)}, and here it is "
    problem += f"{tuple(fresh.shape)}; use the hyper-parameters of the initial training"
    if old.dim() != fresh.dim():
        raise BadInput(problem)
    places, sources = [], []
    for axis, of_axis in enumerate(fields):
        ordered = _in_order(recommender, of_axis)
        ours = _labels(fresh.shape[axis], ordered, our_rows)
        theirs = _labels(old.shape[axis], ordered, rows)
        if ours is None or theirs is None or (not of_axis and ours != theirs):
            raise BadInput(problem)
        known = {label: place for place, label in enumerate(theirs)}
        pairs = [(place, known[label]) for place, label in enumerate(ours) if label in known]
        shape = [-1 if other == axis else 1 for other in range(old.dim())]
        places.append(torch.tensor([place for place, _ in pairs], dtype=torch.long).view(shape))
        sources.append(torch.tensor([source for _, source in pairs], dtype=torch.long).view(shape))
    if old.dim() == 0:
        return old
    result = fresh.clone()
    result[tuple(places)] = old[tuple(sources)]
    return result


def _in_order(recommender: Recommender, fields: list[str]) -> list[str]:
    """Fields that share an axis, in the order of their blocks on it."""
    if recommender.entry.family != "context-aware" or len(fields) < 2:
        return fields
    return [str(name) for name in cast(Any, recommender.module).token_field_names]


def _labels(size: int, fields: list[str], rows: Rows) -> list[_Label] | None:
    """What each place on an axis stands for; None if it is too short.

    Places beyond the tokens, such as BERT4Rec's mask, stand for themselves.
    """
    labels: list[_Label] = [(field, token) for field in fields for token in rows.get(field, ())]
    extra = size - len(labels)
    return None if extra < 0 else labels + [("", place) for place in range(extra)]
