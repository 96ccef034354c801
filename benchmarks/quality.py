"""Compare the NDCG@10 of our training with that of stock RecBole, over seeds."""

import copy
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from rich.table import Table
from scipy import stats


class Side(Protocol):
    """A model that trains an epoch at a time."""

    module: torch.nn.Module

    def train_epoch(self) -> None:
        """Train one epoch."""

    def validate(self) -> float:
        """NDCG@10 on the validation part."""

    def test(self) -> float:
        """NDCG@10 on the test part."""


def compare(
    model: str,
    stock: Callable[[str, int], Side],
    ours: Callable[[str, int], Side],
    seeds: Iterable[int],
    epochs: int,
) -> Table:
    """Train both sides with each seed; the weights of the best validated epoch count.

    Args:
        model: a name in the zoo.
        stock: builds RecBole's side from the model's name and a seed.
        ours: likewise.
        seeds: the same for both.
        epochs: of every training.
    """
    runs = [(_best(stock(model, seed), epochs), _best(ours(model, seed), epochs)) for seed in seeds]
    scores = np.asarray(runs)  # (seed, side, valid or test)
    table = Table(title=f"{model}: NDCG@10 over {len(scores)} seeds, {epochs} epochs")
    for column in ("", "stock RecBole", "95 % of its mean", "ours", "difference"):
        table.add_column(column, no_wrap=True)
    for place, part in enumerate(("validation", "test")):
        theirs, own = scores[:, 0, place], scores[:, 1, place]
        low, high = _interval(theirs)
        table.add_row(
            part,
            f"{theirs.mean():.4f} ± {theirs.std(ddof=1):.4f}",
            f"{low:.4f} … {high:.4f}",
            f"{own.mean():.4f} ± {own.std(ddof=1):.4f}",
            f"{own.mean() - theirs.mean():+.4f}",
        )
    return table


def _best(side: Side, epochs: int) -> tuple[float, float]:
    """Validation and test NDCG@10 of the epoch that validates best."""
    best, weights = -np.inf, copy.deepcopy(side.module.state_dict())
    for _ in range(epochs):
        side.train_epoch()
        score = side.validate()
        if score > best:
            best, weights = score, copy.deepcopy(side.module.state_dict())
    side.module.load_state_dict(weights)
    _forget(side.module)
    return best, side.test()


def _forget(module: torch.nn.Module) -> None:
    """Graph models keep propagated vectors between predictions, which new weights outdate."""
    for kept in ("restore_user_e", "restore_item_e"):
        if hasattr(module, kept):
            setattr(module, kept, None)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of the mean."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1) * error)
    return float(values.mean()) - reach, float(values.mean()) + reach
