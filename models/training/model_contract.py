"""What a model must hold to, tried on toy data: for `llmkt check-model`, and tests of ours."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor

from models.config import SIDES, Budget, Model, Side, Tap, Transfer
from models.errors import BadInput
from models.recommenders.own_models import require_usable
from models.recommenders.recommender import Recommender
from models.recommenders.registry import described, entry
from models.recommenders.tap_probe import tapped_layer, toy
from models.schemas import KEYS
from models.training.training_loop import Fitted, fit
from models.transfer.hooks import HookManager, listening
from models.transfer.wrapper import Knowledge, ModelWrapper

Promise = tuple[str, bool, str]
"""What was tried, whether it holds, and the fix where it does not."""


def promises(name: str, settings: Model) -> Iterator[Promise]:
    """Try a model's contract, promise by promise; BadInput where a method fails."""
    if not entry(name).by_gradient:
        raise BadInput(f"{name} is computed, not trained by gradient: it has no loss to check.")
    given = settings.given | {"learning_rate": 0.01, "train_batch_size": 32}  # to learn a toy
    first, second, again = (toy(name, given) for _ in range(3))
    require_usable(name, again)
    users = torch.arange(1, first.n_users)
    before = _liked(first, scores_of(first, users))
    fits = [_trained(built, ModelWrapper(built)) for built in (first, second)]
    losses = [[epoch.model_loss for epoch in fitted.epochs] for fitted in fits]
    scores = scores_of(first, users)
    fix = "Check the sign of the loss, and that parameters are registered in the module."
    learned = _liked(first, scores) > before
    yield ("training lifts the training items above the others", learned, fix)
    fix = "Draw random numbers from torch, numpy or random, which are seeded, and read no clock."
    yield ("a seed gives one training, to the bit", losses[0] == losses[1], fix)
    again.restore(first.weights())
    fix = "Register what scores depend on as parameters or buffers; keep nothing between calls."
    same = torch.equal(scores, scores_of(again, users))
    yield ("the weights are all that the scores need", same, fix)
    one = scores_of(first, users[-1:])
    fix = "In evaluation mode, compute each row from its own user alone."
    close = torch.allclose(scores[-1:], one, rtol=1e-4, atol=1e-5)
    yield ("a user's scores do not depend on who else is scored", close, fix)
    for side in SIDES:
        tap = settings.tap_of(side) or entry(name).default_tap(side)
        if tap is not None:
            yield from _promises_of_tap(name, given, side, tap, second)


def _promises_of_tap(
    name: str, given: dict[str, Any], side: Side, tap: Tap, plain: Recommender
) -> Iterator[Promise]:
    what, users = f"{side}' tap, {described(tap)}:", torch.arange(1, plain.n_users)
    built = toy(name, given)
    before = scores_of(built, users)
    changed = (bent_scores(built, tap, users) != before).any(dim=1).all()
    yield (f"{what} changing it changes all scores", bool(changed), "Tap what is scored.")
    built = toy(name, given)
    wrapper = _wrapped(built, side, tap, given, alpha=1.0)
    losses = wrapper.step_loss(next(iter(built.batches())), transferring=True)
    (losses.total - 0.0 * losses.model).backward()
    pulled = any(p.grad is not None and p.grad.any() for p in built.module.parameters())
    yield (f"{what} gradient reaches parameters", pulled, "Do not detach what is tapped.")
    built = toy(name, given)
    _trained(built, _wrapped(built, side, tap, given, alpha=0.0))
    theirs = plain.weights()
    same = all(torch.equal(value, theirs[key]) for key, value in built.weights().items())
    fix = "Let the loss and the tapped layer keep no state of their own."
    yield (f"{what} at weight 0 it gives the baseline to the bit", same, fix)


def _liked(built: Recommender, scores: Tensor) -> float:
    """How far the training items' scores are above the mean, in standard deviations."""
    liked = scores[built.train_users - 1, built.train_items - 1]
    return float((liked.mean() - scores.mean()) / (scores.std() + 1e-12))


def _trained(built: Recommender, wrapper: ModelWrapper) -> Fitted:
    later = count()
    return fit(built, wrapper, lambda: float(next(later)), Budget(epochs=4, patience=99), 1)


def _wrapped(
    built: Recommender, side: Side, tap: Tap, given: dict[str, Any], alpha: float
) -> ModelWrapper:
    found, width = tapped_layer(built.name, given, tap, side)
    tokens = built.tokens[KEYS[side]][1:]
    vectors = torch.randn(len(tokens), width, generator=torch.Generator().manual_seed(2)).numpy()
    known = Knowledge(side, found, width, built.align([*tokens], vectors, side))
    return ModelWrapper(built, Transfer(alpha=alpha, balance="none"), [known])


def bent_scores(built: Recommender, tap: Tap, users: Tensor) -> Tensor:
    """Scores, float (n, n_items), while the columns of what is tapped are multiplied."""
    table = HookManager(built.module, tap).table
    if table is not None or tap.kind == "parameter":
        with torch.no_grad():
            rows = table.weight if table is not None else built.module.get_parameter(tap.name)
            rows += 0.5 * torch.randn_like(rows)
        return scores_of(built, users)

    def bend(output: Any, _: Any) -> Any:
        parts = list(output) if isinstance(output, tuple) else [output]
        place = tap.output or 0
        parts[place] = parts[place] * torch.linspace(1, 3000, parts[place].shape[-1])
        return tuple(parts) if isinstance(output, tuple) else parts[0]

    with listening(built.module, tap.kind, tap.name, bend):
        return scores_of(built, users)


def scores_of(built: Recommender, users: Tensor) -> Tensor:
    """Users' scores without the padding, nothing kept from before, noise drawn from one seed."""
    built.restore({name: value.clone() for name, value in built.module.state_dict().items()})
    built.module.eval()
    torch.manual_seed(5)
    return built.scores(users)[:, 1:].clone()
