"""Compare the time of an epoch with stock RecBole, and measure the cost of transfer.

Both sides train and validate the same model in one process, in turns, so a busy machine slows
both: stock RecBole 1.2.1 (its loaders, trainer and evaluator) and
`models.training.training_loop`, on the 70 % training part of ml-100k, with the same
hyper-parameters, batch size, seed and threads. Validation ranks all items and computes NDCG@10. A
third side, ours with transfer (the default `Transfer`, random targets), trains in the same turns.
First, both sides must give the same NDCG@10 for the same weights.

Seconds are medians per epoch; ratios are stock's over ours. RecBole fits `--eval-batch-size`
user-item pairs into one evaluation batch; its default is 4096, but some of its models validate
several times faster with more.

    .venv/bin/python benchmarks/training_speed.py [--models BPR,NeuMF] [--epochs 5] [--json]

`--size 50000x10000x25` takes a synthetic log instead (`benchmarks.learnable`): users, items and
draws of each; `--batch` is then worth setting.

`--quality` measures no time: it trains both sides over 5 seeds and shows that they learn equally
well. That takes as long as 10 trainings per model. Do not choose anything by its test column.
"""

import argparse
import json
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.learnable import World
from benchmarks.movielens import MovieLens
from benchmarks.ours import Ours
from benchmarks.quality import compare
from benchmarks.stock import Stock, write_atomic
from models.config import Transfer
from models.recommenders import registry
from models.schemas import ITEM, USER

MODELS = ("BPR", "NeuMF", "SimpleX", "MultiVAE", "LightGCN")
SETTINGS: dict[str, Any] = {"learning_rate": 0.001, "train_batch_size": 2048}
"""The rest are RecBole's defaults for each model."""
SEED = 1
MOST_ROUNDS = 60
AGREEMENT = 1e-5
QUALITY_SEEDS = range(1, 6)


def main(arguments: list[str] | None = None) -> None:
    """Measure in a temporary folder; print a table per model, and one line of JSON if asked."""
    options = _options(arguments)
    console = Console(stderr=options.json)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)  # RecBole logs to the root
    torch.set_num_threads(options.threads)
    data = World.parse(options.size).parts() if options.size else MovieLens.read()
    SETTINGS["train_batch_size"] = options.batch
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        write_atomic(data, Path(folder))
        make = Sides(data, Path(folder), options.device, options.eval_batch_size)
        require_agreement(make)
        for model in options.models:
            if model not in registry.MODELS:
                console.print(f"{model} skipped: models/recommenders/registry.py does not have it")
            elif options.quality:
                epochs = options.epochs or 60
                console.print(compare(model, make.stock, make.ours, QUALITY_SEEDS, epochs))
            else:
                measured.append(measure(model, make, options.epochs or 5, options.seconds))
                console.print(measured[-1].table())
    if options.json:
        print(json.dumps(_summary(measured)))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=list(MODELS), help="comma-separated"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="measured epochs per side, at least (default 5); "
        "with --quality, epochs of a training (default 60)",
    )
    parser.add_argument(
        "--seconds", type=float, default=10, help="measure fast models more often, up to this long"
    )
    parser.add_argument("--size", help="users x items x draws of each, in place of ml-100k")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--device", default="cpu", help="torch device of both sides")
    parser.add_argument("--eval-batch-size", type=int, default=4096, help="RecBole's, in pairs")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument(
        "--quality",
        action="store_true",
        help="train instead of timing: validation and test NDCG@10 over 5 seeds; may take hours",
    )
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Sides:
    """Builds either side on the same data."""

    data: MovieLens
    folder: Path
    device: str
    eval_batch_size: int

    def stock(self, model: str, seed: int) -> Stock:
        """Stock RecBole."""
        settings = SETTINGS | {"eval_batch_size": self.eval_batch_size}
        return Stock(model, settings, self.folder, seed, self.device)

    def ours(self, model: str, seed: int, transfer: Transfer | None = None) -> Ours:
        """Ours, with or without transfer."""
        return Ours(model, SETTINGS, self.data, seed, self.device, transfer)


def require_agreement(make: Sides) -> None:
    """Stop unless both sides validate BPR with the same weights to the same NDCG@10."""
    stock, ours = make.stock("BPR", SEED), make.ours("BPR", SEED)
    stock.train_epoch()
    with torch.no_grad():
        for field, table, tokens in (
            (USER, "user_embedding.weight", ours.recommender.tokens[USER]),
            (ITEM, "item_embedding.weight", ours.recommender.tokens[ITEM]),
        ):
            rows = stock.module.get_parameter(table)[stock.ids(field, list(tokens))]
            ours.module.get_parameter(table).copy_(rows)
    theirs, own = stock.validate(), ours.validate()
    if abs(theirs - own) > AGREEMENT:
        raise SystemExit(
            f"NDCG@10 of the same BPR weights is {theirs:.6f} by RecBole and {own:.6f} by ours: "
            "the two sides do not measure the same thing, so nothing is timed"
        )


@dataclass(frozen=True)
class Times:
    """Median seconds of one model."""

    model: str
    rounds: int
    stock_train: float
    stock_valid: float
    ours_train: float
    ours_valid: float
    transfer_train: float
    transfer_overhead: float

    @property
    def ratio(self) -> float:
        """Stock's training and validation over ours."""
        return (self.stock_train + self.stock_valid) / (self.ours_train + self.ours_valid)

    def table(self) -> Table:
        """As a table of both sides."""
        table = Table(title=f"{self.model}: seconds per epoch, medians of {self.rounds}")
        for column in ("", "training", "validation", "both"):
            table.add_column(column, justify="right" if column else "left")
        stock, ours = (
            (train, valid, train + valid)
            for train, valid in (
                (self.stock_train, self.stock_valid),
                (self.ours_train, self.ours_valid),
            )
        )
        ratios = (theirs / own for theirs, own in zip(stock, ours, strict=True))
        table.add_row("stock RecBole", *(f"{seconds:.3f}" for seconds in stock))
        table.add_row("ours", *(f"{seconds:.3f}" for seconds in ours))
        table.add_row("ratio", *(f"{ratio:.2f}" for ratio in ratios))
        table.add_row("ours, with transfer", f"{self.transfer_train:.3f}", "", "")
        table.add_row("transfer adds", f"{self.transfer_overhead:+.1%}", "", "")
        return table


def measure(model: str, make: Sides, epochs: int, at_least: float) -> Times:
    """Time all sides of `model` in turns, after a first turn that does not count."""
    stock, ours = make.stock(model, SEED), make.ours(model, SEED)
    transfer = make.ours(model, SEED, Transfer())
    turns: list[Callable[[], object]] = [
        stock.train_epoch,
        stock.validate,
        ours.train_epoch,
        ours.validate,
        transfer.train_epoch,
    ]
    seconds: list[list[float]] = []
    for turn in turns:
        turn()
    began = perf_counter()
    while len(seconds) < epochs or (
        perf_counter() - began < at_least and len(seconds) < MOST_ROUNDS
    ):
        # Every other round in reverse, so that no side always follows the same one.
        order = range(len(turns)) if len(seconds) % 2 else reversed(range(len(turns)))
        took = {index: seconds_of(turns[index], make.device) for index in order}
        seconds.append([took[index] for index in range(len(turns))])
    stock_train, stock_valid, ours_train, ours_valid, transfer_train = (
        statistics.median(column) for column in zip(*seconds, strict=True)
    )
    return Times(
        model,
        len(seconds),
        stock_train,
        stock_valid,
        ours_train,
        ours_valid,
        transfer_train,
        transfer_overhead=statistics.median(row[4] / row[2] - 1 for row in seconds),
    )


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Wall seconds of a call; a GPU's work is waited for."""
    began = perf_counter()
    work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - began


def _summary(measured: list[Times]) -> dict[str, dict[str, float]]:
    return {
        "ratio": {times.model: round(times.ratio, 3) for times in measured},
        "transfer_overhead": {times.model: round(times.transfer_overhead, 4) for times in measured},
    }


if __name__ == "__main__":
    main()
