"""The training loop: one budget, one rule of early stopping, for every arm."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from models.batches import Batches
from models.config import Budget, Transfer
from models.errors import BadInput
from models.recommender import Recommender
from models.schemas import Epoch
from models.transfer.wrapper import ModelWrapper


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs trained in one way."""

    name: str
    epochs: range
    transferring: bool


@dataclass(frozen=True)
class Fitted:
    """The course of a training; the module holds the best epoch's weights."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    seconds: float


def second_half(epochs: int) -> int:
    """First epoch of the second half, in which early stopping is judged and fine-tuning runs."""
    return max(epochs // 2, 1)


def phases(transfer: Transfer | None, epochs: int) -> list[Phase]:
    """The schedule: N/2 epochs of joint loss, then N/2 of fine-tuning (LLM-KT, section 3.3)."""
    if transfer is None:
        return [Phase("train", range(epochs), transferring=False)]
    if transfer.schedule == "joint":
        return [Phase("transfer", range(epochs), transferring=True)]
    half = second_half(epochs)
    return [
        Phase("transfer", range(half), transferring=True),
        Phase("finetune", range(half, epochs), transferring=False),
    ]


def fit(
    recommender: Recommender,
    wrapper: ModelWrapper,
    validate: Callable[[], float],
    budget: Budget,
    seed: int,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> Fitted:
    """Train and leave the weights of the epoch with the best validation score in place.

    Baseline and transfer train under the same rule: the best epoch is sought over all epochs,
    and patience counts from the second half on, so that a transfer arm always reaches its
    fine-tuning phase and a baseline always gets as many epochs as that takes.

    Args:
        recommender: the model with its training data.
        wrapper: the same model's losses, with or without transfer.
        validate: score on the validation set, higher is better.
        budget: epochs and patience.
        seed: of everything random in training (dropout; batches have the recommender's seed).
        on_epoch: called with the number of epochs done.

    Raises:
        BadInput: if a loss is no longer finite; says in which epoch and what to change.
    """
    torch.manual_seed(seed)
    optimizer = _optimizer(recommender)
    batches = recommender.batches()
    judged_from = second_half(budget.epochs)
    history: list[Epoch] = []
    best = _Best()
    began = perf_counter()
    for phase in phases(wrapper.transfer, budget.epochs):
        wrapper.start_phase(phase.name)
        for number in phase.epochs:
            epoch_began = perf_counter()
            model_loss, transfer_loss = _train_epoch(
                recommender, wrapper, batches, optimizer, phase.transferring
            )
            _require_finite(recommender.name, number, model_loss, transfer_loss)
            score = validate()
            best.offer(number, score, recommender.module)
            history.append(
                Epoch(
                    phase=phase.name,
                    epoch=number,
                    model_loss=model_loss,
                    transfer_loss=transfer_loss,
                    valid_score=score,
                    seconds=perf_counter() - epoch_began,
                )
            )
            on_epoch(len(history))
            if number - max(best.epoch, judged_from - 1) >= budget.patience:
                break
    wrapper.weights.thaw()
    best.restore(recommender.module)
    return Fitted(tuple(history), best.epoch, perf_counter() - began)


class _Best:
    """The best epoch so far and a copy of its weights."""

    def __init__(self) -> None:
        self.epoch = -1
        self.score = -math.inf
        self._weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, score: float, module: nn.Module) -> None:
        if score > self.score:
            self.epoch, self.score = epoch, score
            self._weights = {
                name: value.detach().clone() for name, value in module.state_dict().items()
            }

    def restore(self, module: nn.Module) -> None:
        module.load_state_dict(self._weights)


def _train_epoch(
    recommender: Recommender,
    wrapper: ModelWrapper,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    transferring: bool,
) -> tuple[float, float | None]:
    """One pass over the batches; returns both mean losses."""
    recommender.module.train()
    clip = recommender.settings["clip_grad_norm"]
    model_total = torch.zeros((), device=recommender.device)
    transfer_total = torch.zeros((), device=recommender.device)
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        losses = wrapper.step_loss(batch, transferring)
        losses.total.backward()
        if clip:
            nn.utils.clip_grad_norm_(recommender.module.parameters(), **clip)
        optimizer.step()
        model_total += losses.model.detach().reshape(())
        if losses.transfer is not None:
            transfer_total += losses.transfer.detach()
    steps = len(batches)
    return float(model_total) / steps, float(transfer_total) / steps if transferring else None


def _optimizer(recommender: Recommender) -> torch.optim.Optimizer:
    """The optimizer that RecBole's `learner` names (recbole/trainer/trainer.py), Adam fused."""
    settings = recommender.settings
    parameters = list(recommender.module.parameters())
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    learner = settings["learner"].lower()
    if learner == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)
    if learner == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    others: dict[str, type[torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
    }
    if learner not in others:
        raise BadInput(
            f"models.{recommender.name}.hyperparameters.learner: {learner} is not one of "
            f"adam, adamw, {', '.join(others)}"
        )
    return others[learner](parameters, lr=rate, weight_decay=decay)  # type: ignore[call-arg]


def _require_finite(model: str, epoch: int, loss: float, transfer_loss: float | None) -> None:
    if not math.isfinite(loss + (transfer_loss or 0.0)):
        raise BadInput(
            f"{model}: the loss is no longer finite in epoch {epoch} (model loss {loss}, "
            f"transfer loss {transfer_loss}); lower learning_rate or alpha"
        )
