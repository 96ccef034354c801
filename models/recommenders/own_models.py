"""One's own models: a torch module with `loss` and `scores`, or a subclass of a RecBole model.

A plain module's constructor takes the training data (`models.recommenders.batches.Pairs`) and
hyper-parameters; docs/own.md describes both protocols. One whose `loader` is None is computed.
"""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from models.config import Tap
from models.config.plugins import calling, checked
from models.errors import BadInput
from models.recommenders.entry import LOADERS, Entry, Family, Loader
from models.schemas import USER

_INPUTS: dict[str, Loader] = dict(zip(("PAIRWISE", "POINTWISE", "LISTWISE"), LOADERS, strict=True))


def own_entry(name: str, found: Any, shipped: Mapping[str, Entry]) -> Entry:
    """Make the row of one's own class; BadInput if it is no model or lacks a method."""
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise BadInput(f"{name}: {found!r} is no model. Name a class that extends nn.Module.")
    if any(base.__module__ == "recbole.model.abstract_recommender" for base in found.__mro__):
        return _of_recbole(name, found, shipped)
    loader = getattr(found, "loader", LOADERS[0])
    calls = ("loss(self, batch)", "scores(self, users)")
    for call in calls if loader else calls[1:]:
        method = getattr(found, call.partition("(")[0], None)
        if method is None:
            raise BadInput(f"{name}: {found.__name__} has no method {call}. Add it.")
        checked(name, call, method, lambda *_: None)
    arguments = [*inspect.signature(found).parameters.values()]
    if loader not in (*LOADERS, None):
        raise BadInput(f"{name}: loader {loader!r} is unknown. Set one of {', '.join(LOADERS)}.")
    given = {a.name: None if a.default is a.empty else a.default for a in arguments[1:]}
    given |= {"loader": loader}
    knows = _taps(name, found) | {"takes_embeddings": hasattr(found, "take_prior")}
    return Entry("general", loader, **knows, own=found, defaults=given)


def _taps(name: str, found: type) -> dict[str, Any]:
    """The class attribute `taps`, by attribute of `Entry`."""
    keys, given = {"users": "tap", "items": "item_tap"}, getattr(found, "taps", {})
    named = {k: {"name": tap} if isinstance(tap, str) else tap for k, tap in given.items()}
    what = f"reading {found.__name__}.taps, by users and items,"
    return calling(name, what, lambda: {keys[k]: Tap(**tap) for k, tap in named.items()})


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
    family: Any = {"CONTEXT": "context-aware"}.get(found.type.name, found.type.name.lower())
    if family not in get_args(Family):
        raise BadInput(f"{name}: RecBole's {family} models are not supported. Name another.")
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
    given.pop("loader", None)
    module: Any = calling(name, f"{own}(data, …)", lambda: found(data, **given))

    def scalar(value: Any, _: Any) -> str | None:
        fits = isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad
        return None if fits else "a scalar tensor that depends on the parameters"

    def matrix(value: Any, users: Tensor) -> str | None:
        shape = len(users), data.n_items
        fits = isinstance(value, Tensor) and tuple(value.shape) == shape
        return None if fits else f"shape {shape}, a row per user, a column per item, padding first"

    scores = checked(name, f"{own}.scores(users)", module.scores, matrix)
    if entry.loader:
        loss = checked(name, f"{own}.loss(batch)", module.loss, scalar)
        module.calculate_loss = lambda interaction: loss(interaction.interaction).reshape(())
    module.full_sort_predict = lambda interaction: scores(interaction.interaction[USER])
    return cast(nn.Module, module)


def require_usable(name: str, recommender: Any) -> None:
    """Try a model's loss and scores on toy data; BadInput names class, method and expectation."""
    own = type(recommender.module).__name__
    users, loss = torch.arange(1, recommender.n_users), torch.zeros(())
    if recommender.entry.loader:
        loss = calling(name, f"{own}'s loss", recommender.loss, next(iter(recommender.batches())))
    recommender.module.eval()
    scores = calling(name, f"{own}'s scores", recommender.scores, users)[:, 1:]
    recommender.module.train()
    if not (torch.isfinite(loss) and torch.isfinite(scores).all()):
        raise BadInput(f"{name}: {own}'s loss and scores on toy data must be finite. Correct it.")
