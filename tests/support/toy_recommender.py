"""Small worlds to train on: two tastes, and targets that tell them apart."""

import numpy as np
import torch

from models.config import Budget, Transfer
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.recommenders.tap_probe import tapped_layer
from models.training.training_loop import Fitted, fit
from models.training.validation import Holdout
from models.transfer.wrapper import Knowledge, ModelWrapper

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


def targets(side: str = "users", width: int = WIDTH) -> tuple[list[str], np.ndarray]:
    """Unit-variance targets, in an order that is not RecBole's: two tastes, or their items."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(2, width))
    if side == "users":
        tokens = USERS[::-1]
        group = [int(user[1:]) % 2 for user in tokens]
    else:
        tokens = ITEMS[::-1]
        group = [int(int(item[1:]) >= N_ITEMS // 2) for item in tokens]
    vectors = (centres[group] + 0.1 * rng.normal(size=(len(tokens), width))).astype(np.float32)
    return tokens, (vectors - vectors.mean(0)) / vectors.std()


UNIVERSE = Universe(
    USERS,
    ITEMS,
    years=[str(1990 + i % 3) for i in range(N_ITEMS)],
    genres=[["drama", "war"][: i % 3] for i in range(N_ITEMS)],
)
SMALL: dict[str, dict[str, object]] = {
    "NCL": {"num_clusters": 4},
    "DGCF": {"n_factors": 2, "n_iterations": 1},
    "SGL": {"n_layers": 2},
    "SASRec": {"MAX_ITEM_LIST_LENGTH": 8},
    "GRU4Rec": {"MAX_ITEM_LIST_LENGTH": 8},
    "BERT4Rec": {"MAX_ITEM_LIST_LENGTH": 8},
}
"""Hyper-parameters that bring a model down to the size of this world."""


def recommender(
    model: str, seed: int = 1, device="cpu", precision="float32", **hyperparameters
) -> Recommender:
    settings = {"train_batch_size": 64, **SMALL.get(model, {}), **hyperparameters}
    log = Log(*interactions()[0])
    return Recommender(model, settings, log, UNIVERSE, seed, device, precision)


def wrap(
    built: Recommender, transfer: Transfer | None, tap=None, rows=None, sides=("users",)
) -> ModelWrapper:
    """Wrap `built`, with targets as wide as what is tapped unless `rows` are given."""
    if transfer is None:
        return ModelWrapper(built)
    given = {
        key: value for key, value in built.settings.items() if key in SMALL.get(built.name, {})
    }
    knowledge = []
    for side in sides:
        tapped, width = tapped_layer(built.name, given, tap, side)
        aligned = built.align(*(rows or targets(side, width)), side)
        knowledge.append(Knowledge(side, tapped, width, aligned))
    return ModelWrapper(built, transfer, knowledge, seed=1)


def train(
    built: Recommender, wrapper: ModelWrapper, epochs: int = 6, patience: int = 99, seed: int = 1
) -> Fitted:
    holdout = Holdout.from_pairs(built, interactions()[1])
    budget = Budget(epochs=epochs, patience=patience)
    return fit(built, wrapper, lambda: holdout.score(built, "ndcg", 5), budget, seed)


def weights(built: Recommender) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in built.weights().items()}
