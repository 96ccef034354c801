"""The training loop: one budget, one rule of early stopping, for every arm."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.config import Budget, Transfer
from models.errors import BadInput
from models.recommenders.recbole_trainers import seed_all
from models.recommenders.recommender import Recommender
from models.schemas import Epoch
from models.training.training_state import (
    Checkpoints,
    Memory,
    State,
    random_state,
    restore_random,
)
from models.transfer.wrapper import ModelWrapper


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs trained in one way."""

    name: str
    epochs: range
    transferring: bool


class Diverged(BadInput):
    """A loss became NaN or infinite.

    Attributes:
        weights: the best epoch's until then; empty if there was none.
    """

    def __init__(self, message: str, weights: dict[str, Tensor]) -> None:
        super().__init__(message)
        self.weights = weights


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
    """Lay out the phases: N/2 epochs of joint loss, N/2 of fine-tuning (LLM-KT, section 3.3).

    `joint` and `decay` transfer in all epochs; alignment `init` transfers before the first.
    """
    if transfer is None:
        return [Phase("train", range(epochs), transferring=False)]
    if transfer.method.before_training:
        return [Phase("finetune", range(epochs), transferring=False)]
    if transfer.schedule in ("joint", "decay"):
        return [Phase("transfer", range(epochs), transferring=True)]
    half = second_half(epochs)
    return [
        Phase("transfer", range(half), transferring=True),
        Phase("finetune", range(half, epochs), transferring=False),
    ]


def fit(
    recommender: Recommender,
    wrapper: ModelWrapper,
    validate: Callable[[], float] | None,
    budget: Budget,
    seed: int,
    on_epoch: Callable[[int], None] = lambda _: None,
    checkpoints: Checkpoints | None = None,
    epochs: range | None = None,
) -> Fitted:
    """Train and leave the weights of the epoch with the best validation score in place.

    Baseline and transfer train under the same rule: the best epoch is sought over all epochs,
    and patience counts from the second half on, so that a transfer arm always reaches its
    fine-tuning phase and a baseline always gets as many epochs as that takes.

    Args:
        recommender: the model with its training data.
        wrapper: the same model's losses, with or without transfer.
        validate: score on the validation set, higher is better; None makes the last epoch count.
        budget: epochs and patience.
        seed: of everything random in training (dropout; batches have the recommender's seed).
        on_epoch: called with the number of epochs done.
        checkpoints: where the state is left after an epoch. A training that finds one there
            goes on from it, and ends as if it had never stopped.
        epochs: which of the budget's epochs to train, in their phases; None means all.

    Raises:
        Diverged: if a loss is no longer finite; says in which epoch and what to change, and
            carries the best weights so far.
    """
    if recommender.entry.loader is None:
        return _computed(validate, on_epoch)
    seed_all(seed)
    course = _Course(recommender, wrapper)
    course.resume(checkpoints.newest() if checkpoints else None)
    judged_from = second_half(budget.epochs)
    epochs = epochs or range(budget.epochs)
    patience = budget.patience if validate else budget.epochs
    for phase in phases(wrapper.transfer, budget.epochs):
        wrapper.start_phase(phase.name)
        done = epochs.start + len(course.history)
        for number in phase.epochs[max(done - phase.epochs.start, 0) :]:
            if number - 1 - max(course.best_epoch, judged_from - 1) >= patience:
                break
            if number == epochs.stop:
                break
            course.run_epoch(phase, number, budget.epochs, validate)
            if checkpoints:
                checkpoints.save(course.state)
            on_epoch(len(course.history))
    wrapper.weights.thaw()
    recommender.restore(course.best_weights)
    return Fitted(tuple(course.history), course.best_epoch, course.seconds)


class _Course:
    """A training under way: all that changes from epoch to epoch."""

    def __init__(self, recommender: Recommender, wrapper: ModelWrapper) -> None:
        self.history: list[Epoch] = []
        self.best_epoch, self._best_score = -1, -math.inf
        self.best_weights: dict[str, Tensor] = {}
        self._recommender, self._wrapper = recommender, wrapper
        by_gradient = recommender.entry.by_gradient
        self._steps = GradientSteps(recommender, wrapper) if by_gradient else Sweeps(recommender)
        self._memory = Memory(recommender.module)
        self._began = perf_counter()

    @property
    def seconds(self) -> float:
        """Since the training began, without the time between a crash and its resumption."""
        return perf_counter() - self._began

    def run_epoch(
        self, phase: Phase, number: int, epochs: int, validate: Callable[[], float] | None
    ) -> None:
        """Train for one epoch and append its losses and score to the history."""
        began = perf_counter()
        self._wrapper.start_epoch(number, epochs)
        model_loss, transfer_loss = self._steps.train_epoch(number, phase.transferring)
        if not math.isfinite(model_loss + (transfer_loss or 0.0)):
            by_gradient = self._recommender.entry.by_gradient
            fix = "learning_rate or alpha" if by_gradient else "reg_weight or unobserved_weight"
            raise Diverged(
                f"{self._recommender.name}: the loss is no longer finite in epoch {number} (model "
                f"loss {model_loss}, transfer loss {transfer_loss}). Lower {fix}.",
                self.best_weights,
            )
        self._wrapper.end_epoch()
        score = validate() if validate else float(number)
        self._recommender.forget()  # what was kept to score with; no weight depends on it
        if score > self._best_score:
            self.best_epoch, self._best_score = number, score
            self.best_weights = {}  # lets the old copy go before there is a new one
            self.best_weights = self._recommender.weights()
        self.history.append(
            Epoch(
                phase=phase.name,
                epoch=number,
                model_loss=model_loss,
                transfer_loss=transfer_loss,
                valid_score=score,
                seconds=perf_counter() - began,
            )
        )

    def state(self) -> State:
        """All of it, in tensors and plain values."""
        return {
            "module": self._recommender.module.state_dict(),
            "memory": self._memory.state(),
            "steps": self._steps.state(),
            "wrapper": self._wrapper.state(),
            "random": random_state(self._recommender.device),
            "history": [epoch.model_dump() for epoch in self.history],
            "best": (self.best_epoch, self._best_score, self.best_weights),
            "seconds": self.seconds,
        }

    def resume(self, state: State | None) -> None:
        """Continue the training that left `state`; None starts a new one."""
        if state is None:
            return
        self._recommender.module.load_state_dict(state["module"])
        self._memory.restore(state["memory"])
        self._steps.restore(state["steps"])
        self._wrapper.restore(state["wrapper"])
        self.history = [Epoch.model_validate(epoch) for epoch in state["history"]]
        self.best_epoch, self._best_score, self.best_weights = state["best"]
        self._began = perf_counter() - state["seconds"]
        restore_random(state["random"], self._recommender.device)


def _computed(validate: Callable[[], float] | None, on_epoch: Callable[[int], None]) -> Fitted:
    """The course of a model that was computed when it was built: one epoch, no loss."""
    began = perf_counter()
    score = validate() if validate else 0.0
    on_epoch(1)
    seconds = perf_counter() - began
    epoch = Epoch(
        phase="train", epoch=0, model_loss=0, transfer_loss=None, valid_score=score, seconds=seconds
    )
    return Fitted((epoch,), 0, seconds)


def optimizer(recommender: Recommender, heads: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer that RecBole's `learner` names (recbole/trainer/trainer.py), Adam fused.

    `models.recommenders.hyperparameters` has refused other names.
    """
    settings = recommender.settings
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": partial(torch.optim.Adam, fused=True),
        "adamw": partial(torch.optim.AdamW, fused=True),
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
    }
    parameters = [*recommender.module.parameters(), *heads]
    return made[settings["learner"].lower()](
        parameters, lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )


class GradientSteps:
    """Epochs of steps along the gradient, batch by batch."""

    def __init__(self, recommender: Recommender, wrapper: ModelWrapper) -> None:
        self._recommender, self._wrapper = recommender, wrapper
        self._optimizer = optimizer(recommender, [*wrapper.head_parameters()])
        self._batches = recommender.batches()

    def train_epoch(self, epoch: int, transferring: bool) -> tuple[float, float | None]:
        """Train one epoch, as many passes over the batches as the model's own trainer makes.

        Returns:
            Both losses' means over the steps.
        """
        recommender = self._recommender
        recommender.module.train()
        clip = recommender.settings["clip_grad_norm"]
        model_total = torch.zeros((), device=recommender.device)
        transfer_total = torch.zeros((), device=recommender.device)
        steps = 0
        for frozen in recommender.passes(epoch):
            for batch in self._batches:
                self._optimizer.zero_grad(set_to_none=True)
                losses = self._wrapper.step_loss(batch, transferring)
                losses.total.backward()
                for parameter in frozen:
                    parameter.grad = None
                if clip:
                    nn.utils.clip_grad_norm_(recommender.module.parameters(), **clip)
                self._optimizer.step()
                model_total += losses.model.detach().reshape(())
                if losses.transfer is not None:
                    transfer_total += losses.transfer.detach()
            steps += len(self._batches)
        self._optimizer.zero_grad()  # ranking needs the memory
        return float(model_total) / steps, float(transfer_total) / steps if transferring else None

    def state(self) -> State:
        """What the next epoch depends on, beside the weights."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "batches": self._batches.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Continue from `state`."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches.generator.set_state(state["batches"].cpu())


class Sweeps:
    """Epochs that solve for all vectors in turn; they depend on nothing but the weights."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def train_epoch(self, _epoch: int, _transferring: bool) -> tuple[float, None]:
        """Sweep once; the objective per training interaction."""
        module = cast(Any, self._recommender.module)
        module.sweep()
        objective: float = module.objective()
        return objective / len(self._recommender.train_users), None

    def state(self) -> State:
        """Nothing."""
        return {}

    def restore(self, _state: State) -> None:
        """Nothing to do."""
