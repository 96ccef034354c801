"""Measure when BPR reaches an NDCG that `implicit`'s C++ reaches, too: CPU seconds of one thread.

The logs are synthetic, with something to learn (`benchmarks.learnable`). After each epoch both
sides' vectors are ranked by the same code (full ranking, training items hidden), whose time does
not count. Each side tries the same number of learning rates; its best one counts. The goal of both
is 99 % of the lesser of their best NDCG@10, so the ratio is that of equal results.

implicit draws as many pairs an epoch, one at a time, by stochastic gradient descent; ours takes
batches and Adam.

    .venv/bin/python -m benchmarks.bpr_speed [--size 50000x10000x20] [--epochs 12] [--json]
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from time import process_time

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.learnable import World
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recbole_trainers import seed_all
from models.recommenders.recommender import Recommender
from models.training.training_loop import GradientSteps
from models.transfer.wrapper import ModelWrapper

COLUMNS = 64
OUR_RATES, THEIR_RATES = (0.002, 0.005, 0.02), (0.01, 0.03, 0.1)
Course = list[tuple[float, float]]
"""After each epoch: CPU seconds of training so far, NDCG@10."""


def main(arguments: list[str] | None = None) -> None:
    """Print a table, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="50000x10000x20", help="users x items x draws of each")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16_384)
    parser.add_argument("--our-rates", default=",".join(map(str, OUR_RATES)))
    parser.add_argument("--their-rates", default=",".join(map(str, THEIR_RATES)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        world = World.parse(options.size)
        courses = {
            "implicit": _courses(options.their_rates, theirs, world, options.epochs),
            "ours": _courses(
                options.our_rates,
                lambda world, rate, epochs: ours(world, rate, epochs, options.batch),
                world,
                options.epochs,
            ),
        }
    best = {side: max(n for c in found.values() for _, n in c) for side, found in courses.items()}
    goal = 0.99 * min(best.values())
    table = Table(
        "side", "rate", "epochs", "s an epoch", f"s to {goal:.4f}", "best NDCG@10",
        title=f"{options.size}: {len(world.train[0]):,} training interactions",
    )  # fmt: skip
    fastest: dict[str, float | None] = {}
    for side, found in courses.items():
        for rate, course in found.items():
            seconds = next((s for s, ndcg in course if ndcg >= goal), None)
            fastest[side] = min(filter(None, [fastest.get(side), seconds]), default=None)
            shown = "never" if seconds is None else f"{seconds:.1f}"
            each = f"{course[-1][0] / len(course):.2f}"
            top = f"{max(ndcg for _, ndcg in course):.4f}"
            table.add_row(side, f"{rate:g}", str(len(course)), each, shown, top)
    Console(stderr=options.json).print(table, f"ours / implicit: {_ratio(fastest)}")
    if options.json:
        print(json.dumps({"interactions": len(world.train[0]), "ratio": _ratio(fastest)} | best))


def _ratio(fastest: dict[str, float | None]) -> float | None:
    mine, other = fastest["ours"], fastest["implicit"]
    return round(mine / other, 2) if mine and other else None


def _courses(
    rates: str, side: Callable[[World, float, int], Iterator[tuple[float, float]]],
    world: World, epochs: int,
) -> dict[float, Course]:  # fmt: skip
    return {rate: list(side(world, rate, epochs)) for rate in map(float, rates.split(","))}


def ours(world: World, rate: float, epochs: int, batch: int) -> Iterator[tuple[float, float]]:
    """Train as `fit` does, without its validation."""
    names = [
        pa.array(np.char.add(letter, np.arange(n).astype(str)))
        for letter, n in (("u", world.n_users), ("i", world.n_items))
    ]
    log = Log(*(
        pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(part.astype(np.int32)), known)])
        for part, known in zip(world.train, names, strict=True)
    ))  # fmt: skip
    settings = {"embedding_size": COLUMNS, "learning_rate": rate, "train_batch_size": batch}
    began = process_time()
    recommender = Recommender("BPR", settings, log, Universe(*names), 1, "cpu")
    wrapper = ModelWrapper(recommender)
    wrapper.start_phase("train")
    seed_all(1)
    steps, spent = GradientSteps(recommender, wrapper), process_time() - began
    rows = recommender.user_ids(names[0]), recommender.item_ids(names[1])
    for epoch in range(epochs):
        began = process_time()
        steps.train_epoch(epoch, False)
        spent += process_time() - began
        weights = recommender.module.state_dict()
        tables = weights["user_embedding.weight"], weights["item_embedding.weight"]
        vectors = [table.numpy()[row] for table, row in zip(tables, rows, strict=True)]
        yield spent, world.ndcg(*vectors)


def theirs(world: World, rate: float, epochs: int) -> Iterator[tuple[float, float]]:
    """The BPR of implicit, which scores by biases as well."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        COLUMNS, learning_rate=rate, iterations=epochs, num_threads=1, random_state=1
    )
    course, spent, began = Course(), 0.0, process_time()

    def note(*_: object) -> None:
        nonlocal spent, began
        spent += process_time() - began
        course.append((spent, world.ndcg(model.user_factors, model.item_factors)))
        began = process_time()

    model.fit(world.matrix, show_progress=False, callback=note)
    return iter(course)


if __name__ == "__main__":
    main()
