"""Measure the cost of one training on many users: CPU seconds, seconds of ranking, peak memory.

Synthetic data: every user has as many training interactions, fewer those that are drawn twice, and
popularity falls from item to item.
A model with 64 columns, validated after each epoch or sweep, then ranked for both splits, all by
`tasks.training.worker.train` in this process. Times are CPU seconds, since other programs
lengthen wall time. Each call measures one size, so the peak is that of the size. With `--steps`,
an epoch ends after so many batches, which is enough for the peak:

    .venv/bin/python benchmarks/training_cost.py [--users 20000] [--items 10000] [--json]
    .venv/bin/python benchmarks/training_cost.py --model iALS --epochs 12 --users 1000000
    .venv/bin/python benchmarks/training_cost.py --model LightGCN --epochs 1 --steps 20
"""

import argparse
import json
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from time import process_time
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.config import Budget, Job
from models.recommenders.batches import Batches
from models.schemas import INTERACTIONS, ITEM, ITEMS, USERS
from tasks.execution.progress import Tracker
from tasks.storage.artifacts import Handle, write_parquet
from tasks.training.model_tables import Inputs
from tasks.training.worker import train

HELD = 4
"""Validation interactions of each user."""


@dataclass
class Clock(Tracker):
    """Notes the CPU seconds at the end of each epoch."""

    ends: list[float] = field(default_factory=list)

    def __call__(self, done: int) -> None:  # noqa: ARG002
        """Called after each epoch."""
        self.ends.append(process_time())


def main(arguments: list[str] | None = None) -> None:
    """Train in a temporary folder; print a table, or one line of JSON if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--model", choices=("BPR", "iALS", "LightGCN"), default="BPR")
    parser.add_argument("--epochs", type=int, default=2, help="of BPR, or sweeps of iALS")
    parser.add_argument("--each", type=int, default=30, help="training interactions of a user")
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--steps", type=int, help="batches of an epoch; all if not given")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMKT_DATA_DIR"] = folder
        size = options.users, options.items, options.each
        found = measure(options.model, *size, options.epochs, options.batch, options.steps)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(*found)
    table.add_row(*map(str, found.values()))
    Console().print(table)


def measure(
    model: str,
    users: int,
    items: int,
    each: int,
    epochs: int,
    batch: int,
    steps: int | None = None,
) -> dict[str, Any]:
    """The figures of one training."""
    # Made in another process, whose memory is not the training's.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        inputs = other.submit(synthetic, users, items, each).result()
    budget = Budget(epochs=epochs, patience=epochs)
    settings = {"embedding_size": 64}
    if model != "iALS":
        settings["train_batch_size"] = batch
    job = Job.model_validate(
        {"model": model, "arm": "baseline", "seed": 1, "hyperparameters": settings}
        | {"transfer": None, "taps": {}, "kar": None, "budget": budget, "k": 20}
    )
    clock = Clock("training", budget.epochs, "none")
    whole = Batches.__iter__
    began = process_time()
    with patch.object(Batches, "__iter__", lambda self: islice(whole(self), steps)):
        train(job, inputs, clock, None, "cost")
    start, *ends = [began, *clock.ends] if epochs == 1 else clock.ends
    return {
        "model": model,
        "users": users,
        "interactions": inputs.train.rows,
        "items": items,
        "epoch_cpu_seconds": round((ends[-1] - start) / len(ends), 2),
        "two_rankings_cpu_seconds": round(process_time() - clock.ends[-1], 2),
        "minutes": round((process_time() - began) / 60, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def synthetic(users: int, items: int, each: int) -> Inputs:
    """What the training reads."""
    rng = np.random.default_rng(1)
    known = pa.Table.from_pydict({ITEM: [f"i{number}" for number in range(items)]})
    for name in ITEMS.names[1:]:
        known = known.append_column(name, pa.nulls(items))
    people = pa.table([[f"u{number}" for number in range(users)]], USERS.names)
    return Inputs(
        _pairs(rng, users, items, each),
        _pairs(rng, users, items, HELD),
        write_parquet("users", people.cast(USERS)),
        write_parquet("items", known.cast(ITEMS)),
        targets={},
    )


def _pairs(rng: np.random.Generator, users: int, items: int, each: int) -> Handle:
    drawn = (items * rng.random(users * each) ** 2).astype(np.int64)
    user, item = np.divmod(np.unique(np.repeat(np.arange(users), each) * items + drawn), items)
    columns = [
        _names("u", user),
        _names("i", item),
        pa.nulls(len(user)),
        pa.array(np.arange(len(user))),
    ]
    return write_parquet("split", pa.table(columns, INTERACTIONS.names).cast(INTERACTIONS))


def _names(letter: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(letter, pa.array(numbers).cast(pa.string()), "")


if __name__ == "__main__":
    main()
