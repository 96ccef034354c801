"""One's own models: a torch module with `loss` and `scores`, or a subclass of a RecBole model.

A plain module has `__init__(self, data, …)`, whose keywords are hyper-parameters,
`loss(self, batch)`, a scalar, and `scores(self, users)`, int64 (n,) to float (n, data.n_items);
`data` is `models.recommenders.batches.Pairs`. Class attributes `taps` and `loader` are optional.
A subclass of a RecBole model is what RecBole expects; its class attribute `hyperparameters` holds
the defaults of those that its parent does not have. See docs/own.md.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.config import Tap
from models.errors import BadInput
from models.plugins import calling, checked
from models.recommenders.entry import Entry, Family, Loader
from models.schemas import USER

LOADERS: tuple[Loader, ...] = ("pairwise", "pointwise", "users")
"""Of plain modules."""
_ABSTRACT = "recbole.model.abstract_recommender"
_INPUTS: dict[str, Loader] = dict(zip(("PAIRWISE", "POINTWISE", "LISTWISE"), LOADERS, strict=True))
_FAMILIES: dict[str, Family] = {
    "GENERAL": "general",
    "CONTEXT": "context-aware",
    "SEQUENTIAL": "sequential",
}


def own_entry(name: str, found: Any, shipped: Mapping[str, Entry]) -> Entry:
    """Make the row of one's own class; BadInput if it is no model or lacks a method."""
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise BadInput(
            f"{name}: {found!r} is no model. Name a class that extends torch.nn.Module or a "
            "RecBole model."
        )
    if any(base.__module__ == _ABSTRACT for base in found.__mro__):
        return _of_recbole(name, found, shipped)
    for call in ("loss(self, batch)", "scores(self, users)"):
        method = getattr(found, call.partition("(")[0], None)
        if method is None:
            raise BadInput(f"{name}: {found.__name__} has no method {call}. Add it.")
        checked(name, call, method, lambda *_: None)
    arguments = [*inspect.signature(found).parameters.values()]
    loader = getattr(found, "loader", LOADERS[0])
    if loader not in LOADERS:
        raise BadInput(f"{name}: loader {loader!r} is unknown. Set one of {', '.join(LOADERS)}.")
    given = {a.name: None if a.default is a.empty else a.default for a in arguments[1:]}
    return Entry("general", loader, **_taps(name, found), own=found, defaults=given)


def _taps(name: str, found: type) -> dict[str, Any]:
    """The class attribute `taps`, by attribute of `Entry`."""
    keys, given = {"users": "tap", "items": "item_tap"}, getattr(found, "taps", {})

    def read() -> dict[str, Tap]:
        named = {
            side: {"name": tap} if isinstance(tap, str) else tap for side, tap in given.items()
        }
        return {keys[side]: Tap.model_validate(tap) for side, tap in named.items()}

    return calling(name, f"reading {found.__name__}.taps, by users and items,", read)


def _of_recbole(name: str, found: Any, shipped: Mapping[str, Entry]) -> Entry:
    """Make the row of a RecBole model that does not ship, or of a subclass of one."""
    kin = next(base for base in found.__mro__ if base.__module__.startswith("recbole.model."))
    own: dict[str, Any] = {
        "own": found,
        "kin": kin.__name__,
        "defaults": dict(getattr(found, "hyperparameters", {})),
        **_taps(name, found),
    }
    if kin.__name__ in shipped:
        return replace(shipped[kin.__name__], **own)
    family = _FAMILIES.get(found.type.name)
    if family is None:
        raise BadInput(
            f"{name}: RecBole's {found.type.name.lower()} models are not supported. Extend a "
            "general, context-aware or sequential one."
        )
    if family == "sequential":
        return Entry(family, "sequences", **{"tap": Tap(kind="method", name="forward"), **own})
    return Entry(family, _INPUTS[found.input_type.name], **own)


def plain_module(name: str, entry: Entry, data: Any, settings: Mapping[str, Any]) -> nn.Module:
    """Build a plain module and give it the two methods by which RecBole's models are called.

    They raise BadInput where the module's own fail or return something else.
    """
    found: Any = entry.own
    own = found.__name__
    given = {key: settings[key] for key in entry.defaults if settings[key] is not None}
    module: Any = calling(name, f"{own}(data, …)", lambda: found(data, **given))

    def scalar(value: Any, _: Any) -> str | None:
        fits = isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad
        return None if fits else "a scalar tensor that depends on the parameters"

    def matrix(value: Any, users: Tensor) -> str | None:
        shape = len(users), data.n_items
        fits = isinstance(value, Tensor) and tuple(value.shape) == shape
        return None if fits else f"shape {shape}, a row per user, a column per item, padding first"

    loss = checked(name, f"{own}.loss(batch)", module.loss, scalar)
    scores = checked(name, f"{own}.scores(users)", module.scores, matrix)
    module.calculate_loss = lambda interaction: loss(interaction.interaction).reshape(())
    module.full_sort_predict = lambda interaction: scores(interaction.interaction[USER])
    return cast(nn.Module, module)


def require_usable(name: str, recommender: Any) -> None:
    """Try a model's loss and scores on toy data; BadInput names class, method and expectation."""
    own = type(recommender.module).__name__
    batch, users = next(iter(recommender.batches())), torch.arange(1, recommender.n_users)
    loss = calling(name, f"{own}'s loss", recommender.loss, batch)
    recommender.module.eval()
    scores = calling(name, f"{own}'s scores", recommender.scores, users)[:, 1:]
    recommender.module.train()
    for what, value in (("loss", loss), ("scores", scores)):
        if not torch.isfinite(value).all():
            raise BadInput(f"{name}: {own}'s {what} on toy data must be finite. Correct its code.")
