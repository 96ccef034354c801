"""Floors on real data: below them the training or the metric is broken."""

import numpy as np
import pytest
import torch

from models.config import Budget, Dataset, Split
from models.dataset.splitting import split
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.recommenders.top_k import rank
from models.training.training_loop import fit
from models.training.validation import Holdout
from models.transfer.wrapper import ModelWrapper
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.storage.artifacts import read_parquet

torch.set_num_threads(1)


def pairs(table):
    return table["user_id"].to_pylist(), table["item_id"].to_pylist()


@pytest.mark.usefixtures("data_dir", "no_run_logger")
@pytest.mark.parametrize(
    ("model", "hyperparameters", "floor"),
    [
        ("BPR", {"learning_rate": 0.002}, 0.355),
        ("iALS", {}, 0.43),
        pytest.param(
            "MultiVAE",
            {"learning_rate": 0.002, "train_batch_size": 256},
            0.385,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_baselines_reach_their_level_on_movielens(model, hyperparameters, floor):
    data = interactions.fn(Dataset(), raw_files(Dataset()))
    train, valid, test = split(read_parquet(data.interactions), Split())
    universe = Universe(
        *(
            read_parquet(handle)[name].to_pylist()
            for handle, name in ((data.users, "user_id"), (data.items, "item_id"))
        )
    )
    built = Recommender(model, hyperparameters, Log(*pairs(train)), universe, seed=1)
    holdout = Holdout.from_pairs(built, pairs(valid))
    budget = Budget(epochs=30, patience=5)
    fit(built, ModelWrapper(built), lambda: holdout.score(built, "ndcg", 10), budget, seed=1)

    users, items = pairs(test)
    held = HeldOut(built.user_ids(users), built.item_ids(items), built.n_items)
    ranked = rank(built, held.users, [holdout.seen, holdout.also_held], 10)[1][0]
    values = ranking_metrics(held.hits(ranked), held.n_relevant, ["ndcg"], [10])["ndcg", 10]
    assert len(values) == 943
    assert floor <= float(np.mean(values)) < 0.5
