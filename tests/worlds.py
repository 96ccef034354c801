"""Small worlds to train on: two tastes, and targets that tell them apart."""

import numpy as np
import torch

from models.config import Budget, Transfer
from models.holdout import Holdout
from models.recommender import Recommender
from models.training import Fitted, fit
from models.transfer.wrapper import ModelWrapper

torch.set_num_threads(1)

N_USERS, N_ITEMS, WIDTH = 40, 30, 64
USERS = [f"u{i}" for i in range(N_USERS)]
ITEMS = [f"i{i}" for i in range(N_ITEMS)]
Pairs = tuple[list[str], list[str]]


def interactions() -> tuple[Pairs, Pairs]:
    """Train and valid pairs: even users like the first half of the items, odd ones the second."""
    rng = np.random.default_rng(0)
    train: Pairs = ([], [])
    valid: Pairs = ([], [])
    for number, user in enumerate(USERS):
        liked = rng.permutation(N_ITEMS // 2)[:9] + (number % 2) * (N_ITEMS // 2)
        for place, item in enumerate(liked):
            part = train if place < 7 else valid
            part[0].append(user)
            part[1].append(ITEMS[item])
    return train, valid


def targets() -> tuple[list[str], np.ndarray]:
    """Unit-variance targets, in an order of users that is not RecBole's."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(2, WIDTH))
    users = USERS[::-1]
    rows = [centres[int(user[1:]) % 2] + 0.1 * rng.normal(size=WIDTH) for user in users]
    vectors = np.asarray(rows, dtype=np.float32)
    return users, (vectors - vectors.mean(0)) / vectors.std()


def recommender(model: str, seed: int = 1, **hyperparameters) -> Recommender:
    settings = {"train_batch_size": 64, **hyperparameters}
    return Recommender(model, settings, interactions()[0], (USERS, ITEMS), seed)


def wrap(built: Recommender, transfer: Transfer | None, tap=None, rows=None) -> ModelWrapper:
    if transfer is None:
        return ModelWrapper(built)
    aligned = built.align(*(rows or targets()))
    return ModelWrapper(built, transfer, tap or built.entry.tap, aligned)


def train(
    built: Recommender, wrapper: ModelWrapper, epochs: int = 6, patience: int = 99, seed: int = 1
) -> Fitted:
    holdout = Holdout.of(built, interactions()[1])
    budget = Budget(epochs=epochs, patience=patience)
    return fit(built, wrapper, lambda: holdout.score(built, "ndcg", 5), budget, seed)


def weights(built: Recommender) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in built.module.state_dict().items()}
