"""Compare the time of iALS' sweeps with the package `implicit`, in one process, by turns.

Both solve for the same numbers of users, items and columns on one thread. First both make one
sweep from the same item vectors with settings under which the objectives agree, and the scores
must be equal: with α₀ = 1 and ν = 0, iALS' objective is a quarter of implicit's with confidence 2
and twice the regularisation, for scores half as large.

implicit solves exactly with `use_cg=False`. Its default takes three conjugate gradient steps
instead, so it does another job; its time is shown beside. Ratios are ours over implicit's, of
medians; below 1 is faster.

    .venv/bin/python benchmarks/ials_speed.py [--rounds 7] [--columns 64] [--json]
    .venv/bin/python benchmarks/ials_speed.py --size 400000x50000x60 --rounds 1

implicit is no dependency of the pipeline, but of its development: `pip install -e '.[dev]'`.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.movielens import MovieLens
from models.arrow import codes
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.ials import Ials
from models.schemas import ITEM, USER

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
AGREEMENT = 1e-3
REG = 5.0


def main(arguments: list[str] | None = None) -> None:
    """Print a table, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--size", help="users x items x draws of each, in place of both data sets")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    console = Console(stderr=options.json)
    if find_spec("implicit") is None:
        console.print("implicit is not installed, nothing to compare with: pip install implicit")
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    torch.set_num_threads(1)
    ratios: dict[str, dict[str, float]] = {}
    data: dict[str, Callable[[], Pairs]] = {"ml-100k": movielens, "sparse": power_law}
    if options.size:
        data = {"sparse": partial(power_law, *map(int, options.size.split("x")))}
    with threadpool_limits(1):
        for name, made in data.items():
            pairs = made()
            require_agreement(pairs, options.columns)
            seconds = measure(pairs, options.columns, options.rounds)
            console.print(_table(name, pairs, seconds))
            ratios[name] = {
                solver: seconds["ours"] / seconds[solver] for solver in ("exact", "default")
            }
    if options.json:
        print(json.dumps({"ratio": ratios}))


def movielens() -> Pairs:
    """The 70,771 training pairs of ml-100k, rows from 0: histories of 14 to 516 items."""
    train = MovieLens.read().train
    return codes(train[USER]), codes(train[ITEM])


def power_law(users: int = 20_000, items: int = 5_000, each: int = 10) -> Pairs:
    """Short histories of unevenly popular items, as shops have them."""
    rng = np.random.default_rng(1)
    popularity = 1 / np.arange(1, items + 1) ** 0.8
    chosen = rng.choice(items, users * each, p=popularity / popularity.sum())
    pairs = np.unique(np.stack([np.repeat(np.arange(users), each), chosen]), axis=1)
    return pairs[0], pairs[1]


def ours(pairs: Pairs, columns: int, **changes: Any) -> Ials:
    """Our side, before its first sweep."""
    settings = hyperparameters("iALS", {"embedding_size": columns}) | changes
    shape = int(pairs[0].max()) + 2, int(pairs[1].max()) + 2
    return Ials(pairs[0] + 1, pairs[1] + 1, shape, settings, 1, torch.device("cpu"))


def theirs(columns: int, exact: bool, iterations: int = 1) -> Any:
    """Implicit's side."""
    from implicit.cpu.als import AlternatingLeastSquares

    return AlternatingLeastSquares(
        factors=columns,
        regularization=2 * REG,
        use_cg=not exact,
        iterations=iterations,
        num_threads=1,
        random_state=1,
    )


def matrix(pairs: Pairs) -> sparse.csr_matrix:
    """Confidence 2 where there is an interaction: float32 (n_users, n_items)."""
    return sparse.csr_matrix((np.full(len(pairs[0]), 2.0, np.float32), pairs))


def require_agreement(pairs: Pairs, columns: int) -> None:
    """Stop unless one exact sweep of both sides gives the same scores."""
    mine = ours(pairs, columns, reg_weight=REG, reg_exponent=0.0, unobserved_weight=1.0)
    other = theirs(columns, exact=True)
    other.user_factors, other.item_factors = (
        np.ascontiguousarray(2**0.5 * factors[1:].numpy()) for factors in mine.parameters()
    )
    mine.sweep()
    other.fit(matrix(pairs), show_progress=False)
    some = slice(0, 200)
    expected = other.user_factors[some] @ other.item_factors.T / 2
    found = (mine.user_factors[1:][some] @ mine.item_factors[1:].T).numpy()
    worst = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not worst < AGREEMENT:
        raise SystemExit(f"The scores after one sweep differ by {worst:.1e}: nothing is timed.")


def measure(pairs: Pairs, columns: int, rounds: int) -> dict[str, float]:
    """Median seconds of a sweep over users and items, by solver."""
    given, mine = matrix(pairs), ours(pairs, columns)
    users, items = matrix(pairs), matrix(pairs).T.tocsr()
    factors = [np.random.default_rng(1).normal(0, 0.01, (n, columns)) for n in given.shape]
    left, right = (part.astype(np.float32) for part in factors)

    def sweep(exact: bool) -> Callable[[], object]:
        solver = theirs(columns, exact).solver

        def both() -> None:
            solver(users, left, right, REG, num_threads=1)
            solver(items, right, left, REG, num_threads=1)

        return both

    sides = {"ours": mine.sweep, "exact": sweep(exact=True), "default": sweep(exact=False)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, run in sides.items():
            began = perf_counter()
            run()
            times[name].append(perf_counter() - began)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def _table(name: str, pairs: Pairs, seconds: dict[str, float]) -> Table:
    n_users, n_items = (int(part.max()) + 1 for part in pairs)
    title = f"{name}: {n_users} users, {n_items} items, {len(pairs[0])} interactions"
    table = Table("solver", "ms per sweep", "ours / it", title=title)
    labels = {"ours": "ours", "exact": "implicit, use_cg=False", "default": "implicit, default"}
    for solver, label in labels.items():
        ratio = seconds["ours"] / seconds[solver]
        table.add_row(label, f"{1000 * seconds[solver]:.0f}", f"{ratio:.2f}")
    return table


if __name__ == "__main__":
    main()
