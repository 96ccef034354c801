"""Measure the cost of one training on many users: CPU seconds, seconds of ranking, peak memory.

Synthetic data: every user has 30 training interactions, and popularity falls from item to item.
BPR with 64 columns, two epochs with full-ranking validation, then the two final rankings, all by
`tasks.training.worker.train` in this process. Times are CPU seconds, since other programs
lengthen wall time. Each call measures one size, so the peak is that of the size:

    .venv/bin/python benchmarks/training_cost.py [--users 20000] [--items 10000] [--json]
"""

import argparse
import json
import os
import resource
import tempfile
from dataclasses import dataclass, field
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from models.config import Budget, Job
from models.schemas import INTERACTIONS, ITEM, ITEMS, USERS
from tasks.execution.progress import Tracker
from tasks.storage.artifacts import Handle, write_parquet
from tasks.training.model_tables import Inputs
from tasks.training.worker import train

TRAINED, HELD = 30, 4
"""Interactions of each user, before the few that occur twice are dropped."""
BATCH = 8192


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
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMKT_DATA_DIR"] = folder
        found = measure(options.users, options.items)
    if options.json:
        print(json.dumps(found))
        return
    table = Table(*found)
    table.add_row(*map(str, found.values()))
    Console().print(table)


def measure(users: int, items: int) -> dict[str, Any]:
    """The figures of one training."""
    inputs = synthetic(users, items)
    budget = Budget(epochs=2, patience=2)
    settings = {"embedding_size": 64, "train_batch_size": BATCH}
    job = Job.model_validate(
        {"model": "BPR", "arm": "baseline", "seed": 1, "hyperparameters": settings}
        | {"transfer": None, "taps": {}, "kar": None, "budget": budget, "k": 20}
    )
    clock = Clock("training", budget.epochs, "none")
    train(job, inputs, clock, None, "cost")
    first, second = clock.ends
    return {
        "users": users,
        "interactions": inputs.train.rows,
        "items": items,
        "epoch_cpu_seconds": round(second - first, 2),
        "two_rankings_cpu_seconds": round(process_time() - second, 2),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def synthetic(users: int, items: int) -> Inputs:
    """What the training reads."""
    rng = np.random.default_rng(1)
    known = pa.Table.from_pydict({ITEM: [f"i{number}" for number in range(items)]})
    for name in ITEMS.names[1:]:
        known = known.append_column(name, pa.nulls(items))
    people = pa.table([[f"u{number}" for number in range(users)]], USERS.names)
    return Inputs(
        _pairs(rng, users, items, TRAINED),
        _pairs(rng, users, items, HELD),
        write_parquet("users", people.cast(USERS)),
        write_parquet("items", known.cast(ITEMS)),
        targets={},
    )


def _pairs(rng: np.random.Generator, users: int, items: int, each: int) -> Handle:
    drawn = (items * rng.random(users * each) ** 2).astype(np.int64)
    user, item = np.divmod(np.unique(np.repeat(np.arange(users), each) * items + drawn), items)
    columns = [
        pa.array(np.char.add("u", user.astype(str))),
        pa.array(np.char.add("i", item.astype(str))),
        pa.nulls(len(user)),
        pa.array(np.arange(len(user))),
    ]
    return write_parquet("split", pa.table(columns, INTERACTIONS.names).cast(INTERACTIONS))


if __name__ == "__main__":
    main()
