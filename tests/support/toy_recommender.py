"""Models to train on the small toy world, and targets that tell its tastes apart."""

import numpy as np
import pytest
import torch

from models.config import Budget, Transfer
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.recommenders.registry import MODELS
from models.recommenders.tap_probe import tapped_layer
from models.recommenders.teaching import lesson
from models.training.training_loop import Fitted, fit
from models.training.validation import Holdout
from models.transfer.wrapper import Knowledge, ModelWrapper
from tests.support.toy_world import SMALL, Pairs

torch.set_num_threads(1)

N_USERS, N_ITEMS, WIDTH = SMALL.n_users, SMALL.n_items, 64
USERS, ITEMS = SMALL.users, SMALL.items
EVERYBODY = torch.arange(1, N_USERS + 1)

TRAINED = [name for name, entry in MODELS.items() if entry.by_gradient]
TYPICAL = {"BPR", "NeuMF", "MultiVAE", "LightGCN", "NCL", "DiffRec", "DeepFM", "SASRec", "BERT4Rec"}
"""One of each way to be trained; the others are left to `make test-slow` where a test is long."""
typical_models = pytest.mark.parametrize(
    "model",
    [name if name in TYPICAL else pytest.param(name, marks=pytest.mark.slow) for name in TRAINED],
)


def interactions() -> tuple[Pairs, Pairs]:
    """Train and valid pairs."""
    return SMALL.pairs(held_out=2)


def targets(side: str = "users", width: int = WIDTH) -> tuple[list[str], np.ndarray]:
    """Targets that tell the tastes apart, in an order that is not RecBole's."""
    return SMALL.vectors(side, width)


UNIVERSE = Universe(
    USERS,
    ITEMS,
    of_items={
        "year": [str(1990 + i % 3) for i in range(N_ITEMS)],
        "genres": [["drama", "war"][: i % 3] for i in range(N_ITEMS)],
    },
)
SMALL_MODELS: dict[str, dict[str, object]] = {
    "NCL": {"num_clusters": 4},
    "DGCF": {"n_factors": 2, "n_iterations": 1},
    "SGL": {"n_layers": 2},
    **{
        name: {"MAX_ITEM_LIST_LENGTH": 8}
        for name, entry in MODELS.items()
        if entry.family == "sequential"
    },
}
"""Hyper-parameters that bring a model down to the size of this world."""


def recommender(
    model: str, seed: int = 1, device="cpu", precision="float32", **hyperparameters
) -> Recommender:
    batches = {} if MODELS[model].loader == "sweeps" else {"train_batch_size": 64}
    settings = {**batches, **SMALL_MODELS.get(model, {}), **hyperparameters}
    log = Log(*interactions()[0])
    return Recommender(model, settings, log, UNIVERSE, seed, device, precision)


def wrap(
    built: Recommender, transfer: Transfer | None, tap=None, rows=None, sides=("users",)
) -> ModelWrapper:
    """Wrap `built`, with targets as wide as what is tapped unless `rows` are given."""
    if transfer is None:
        return ModelWrapper(built)
    if transfer.method.teaches:
        log, items = Log(*interactions()[0]), built.align(*(rows or targets("items")), "items")
        taught = lesson(built, transfer, (log, UNIVERSE), {"items": items})
        return ModelWrapper(built, transfer, (), 1, taught)
    given = {
        key: value
        for key, value in built.settings.items()
        if key in SMALL_MODELS.get(built.name, {})
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
