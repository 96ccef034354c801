"""Our side of the comparison: what `models.training.training_loop.fit` does, an epoch at a time."""

from typing import Any

import numpy as np

from benchmarks.movielens import MovieLens, pairs
from models.config import Transfer
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recbole_trainers import seed_all
from models.recommenders.recommender import Recommender
from models.recommenders.tap_probe import tapped_layer
from models.recommenders.top_k import rank
from models.training.training_loop import GradientSteps
from models.training.validation import Holdout
from models.transfer.wrapper import Knowledge, ModelWrapper


class Ours:
    """One model with its data, batches and optimizer."""

    def __init__(
        self,
        model: str,
        settings: dict[str, Any],
        data: MovieLens,
        seed: int,
        device: str,
        transfer: Transfer | None = None,
    ) -> None:
        """Build; with `transfer`, random targets of unit variance stand in for profiles."""
        self.recommender = Recommender(
            model, settings, Log(*pairs(data.train)), Universe(data.users, data.items), seed, device
        )
        self.module = self.recommender.module
        self._transferring = transfer is not None
        self._wrapper = self._wrap(transfer, settings, data, seed)
        self._wrapper.start_phase("transfer" if transfer else "train")
        self._holdout = Holdout.from_pairs(self.recommender, pairs(data.valid))
        users, items = pairs(data.test)
        self._test = HeldOut(
            self.recommender.user_ids(users),
            self.recommender.item_ids(items),
            self.recommender.n_items,
        )
        seed_all(seed)
        self._steps = GradientSteps(self.recommender, self._wrapper)
        self._epoch = 0

    def _wrap(
        self, transfer: Transfer | None, settings: dict[str, Any], data: MovieLens, seed: int
    ) -> ModelWrapper:
        if transfer is None:
            return ModelWrapper(self.recommender)
        tap, width = tapped_layer(self.recommender.name, settings)
        vectors = np.random.default_rng(seed).standard_normal((len(data.users), width))
        targets = self.recommender.align(data.users, vectors.astype(np.float32))
        knowledge = Knowledge("users", tap, width, targets)
        return ModelWrapper(self.recommender, transfer, [knowledge], seed)

    def train_epoch(self) -> None:
        """One epoch as `fit` trains it."""
        self._steps.train_epoch(self._epoch, self._transferring)
        self._epoch += 1

    def validate(self) -> float:
        """NDCG@10 on the validation part: full ranking."""
        return self._holdout.score(self.recommender, "ndcg", 10)

    def test(self) -> float:
        """NDCG@10 on the test part: full ranking, training and validation items excluded."""
        held = self._test
        hidden = [self._holdout.seen, self._holdout.also_held]
        ranked = rank(self.recommender, held.users, hidden, 10)[1][0]
        values = ranking_metrics(held.hits(ranked), held.n_relevant, ["ndcg"], [10])
        return float(values["ndcg", 10].mean())
