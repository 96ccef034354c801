"""Start a training from another one's weights, although users and items have come or gone.

The axes of tensors that stand for users, items or their features are not declared per model but
measured: a toy model is built again with one user, item or word more, and some axes grow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.errors import BadInput
from models.recommenders.recbole_adapter import Universe
from models.recommenders.recommender import Recommender
from models.recommenders.tap_probe import TOY_UNIVERSE, toy
from models.schemas import ITEM, USER

Rows = Mapping[str, Sequence[str]]
"""Raw tokens by field, in the order of a model's internal ids, padding first."""

_Label = tuple[str, object]


def rows_of(recommender: Recommender) -> dict[str, list[str]]:
    """List the tokens that a model's rows stand for, to be kept beside its weights."""
    return {field: [str(t) for t in tokens] for field, tokens in recommender.tokens.items()}


def start_from(recommender: Recommender, weights: Mapping[str, Tensor], rows: Rows) -> None:
    """Give a fresh model another training's weights, matched by raw ids.

    Users, items and words that are new keep their fresh weights.

    Args:
        recommender: the fresh model.
        weights: the other model's, by name.
        rows: what that model's rows stand for, from `rows_of`.

    Raises:
        BadInput: naming the tensor that does not fit, or a model that cannot start warm.
    """
    if recommender.entry.loader is None:
        raise BadInput(f"initial: {recommender.name} is computed and has no start. Leave it empty.")
    fields = _fields_of_axes(recommender)
    computed = getattr(recommender.module, "computed", "\0")
    built = recommender.weights()
    values = {name: value for name, value in built.items() if name.startswith(computed)}
    fresh = {name: value for name, value in built.items() if name not in values}
    weights = {name: value for name, value in weights.items() if not name.startswith(computed)}
    for name in sorted(fresh.keys() ^ weights.keys()):
        where = "this model" if name in fresh else "the initial weights"
        raise BadInput(
            f"initial: {recommender.name}'s tensor {name} exists in {where} only. Start from a "
            "training of the same model and hyper-parameters, or leave initial empty."
        )
    ours = rows_of(recommender)
    for name, value in fresh.items():
        merged = _carry_over(weights[name], value, fields[name], rows, ours)
        if merged is None:
            raise BadInput(
                f"initial: {recommender.name}'s tensor {name} is {tuple(weights[name].shape)}, and "
                f"here it is {tuple(value.shape)}. Use the hyper-parameters of the initial "
                "training."
            )
        values[name] = merged
    recommender.restore(values)


def _fields_of_axes(recommender: Recommender) -> dict[str, list[list[str]]]:
    """Per tensor and axis the fields whose tokens it has a place for."""

    def shapes(universe: Universe) -> dict[str, torch.Size]:
        built = toy(recommender.name, recommender.given, universe)
        return {name: value.shape for name, value in built.module.state_dict().items()}

    def toys(features: Mapping[str, Tensor], n: int) -> dict[str, Any]:
        """A word each, or a list of words where rows hold several."""
        return {name: ["a" if rows.dim() == 1 else ["a"]] * n for name, rows in features.items()}

    def grown_by_one(columns: Mapping[str, Any]) -> dict[str, Any]:
        return {name: [*rows, rows[0]] for name, rows in columns.items()}

    users, items = TOY_UNIVERSE.users, TOY_UNIVERSE.items
    of_items, of_users = recommender.features, recommender.user_features
    small = Universe(users, items, toys(of_items, len(items)), toys(of_users, len(users)))
    larger = {
        USER: replace(small, users=[*users, "new"], of_users=grown_by_one(small.of_users)),
        ITEM: replace(small, items=[*items, "new"], of_items=grown_by_one(small.of_items)),
    }
    for features, side in ((of_items, "of_items"), (of_users, "of_users")):
        for name, rows in features.items():
            columns = getattr(small, side)
            column = ["new" if rows.dim() == 1 else ["new"], *columns[name][1:]]
            larger[name] = replace(small, **{side: columns | {name: column}})
    before = shapes(small)
    grown = {field: shapes(larger[field]) for field in recommender.tokens}
    # Fields that share an axis have their blocks in the model's own order.
    order = [str(name) for name in getattr(recommender.module, "token_field_names", None) or ()]
    fields = sorted(grown, key=lambda field: order.index(field) if field in order else len(order))
    return {
        name: [
            [field for field in fields if grown[field][name][axis] > size]
            for axis, size in enumerate(shape)
        ]
        for name, shape in before.items()
    }


def _carry_over(
    old: Tensor, fresh: Tensor, fields: list[list[str]], rows: Rows, our_rows: Rows
) -> Tensor | None:
    """Copy the values of shared tokens from `old` into `fresh`; None if they do not fit."""
    if old.dim() != fresh.dim():
        return None
    if old.dim() == 0:
        return old
    places, sources = [], []
    for axis, axis_fields in enumerate(fields):
        ours = _labels(fresh.shape[axis], axis_fields, our_rows)
        theirs = _labels(old.shape[axis], axis_fields, rows)
        if ours is None or theirs is None or (not axis_fields and ours != theirs):
            return None
        known = {label: place for place, label in enumerate(theirs)}
        pairs = [(place, known[label]) for place, label in enumerate(ours) if label in known]
        shape = [-1 if other == axis else 1 for other in range(old.dim())]
        matched = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
        places.append(matched[:, 0].view(shape))
        sources.append(matched[:, 1].view(shape))
    result = fresh.clone()
    result[tuple(places)] = old[tuple(sources)]
    return result


def _labels(size: int, fields: list[str], rows: Rows) -> list[_Label] | None:
    """What each place on an axis stands for; None if it is too short.

    Places beyond the tokens, such as BERT4Rec's mask, stand for themselves.
    """
    labels: list[_Label] = [(field, token) for field in fields for token in rows.get(field, ())]
    extra = size - len(labels)
    return None if extra < 0 else labels + [("", place) for place in range(extra)]
