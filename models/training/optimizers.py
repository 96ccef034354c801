"""Optimizers by RecBole's names."""

import torch
from torch import nn

from models.errors import BadInput
from models.recommenders.recommender import Recommender


def optimizer(recommender: Recommender, heads: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that RecBole's `learner` names (recbole/trainer/trainer.py), Adam fused."""
    settings = recommender.settings
    parameters = [*recommender.module.parameters(), *heads]
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
