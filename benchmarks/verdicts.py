"""Simulate verdicts: how often a family has any false one, and how often a true gain is found.

Every draw is an experiment of several models, each with a baseline, knowledge, two controls, and
one reference for all. Values vary by replicate (the luck of a training, or of a split), by user and
by both, with the spreads of NDCG@10 on ml-100k. The product's own functions test the chains
(`models.statistics`): a difference of every pair, its p-value, and the shares of the level.

A verdict is false if it claims what is not so, in direction too: better where the arm is equal or
worse, worse where it is equal or better, above every control where one is as good.

    .venv/bin/python benchmarks/verdicts.py [--quick] [--draws 1000] [--json]
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from models.arrow import Floats
from models.statistics.claims import Evidence, decide
from models.statistics.paired_comparison import compare

REPLICATES = (2, 3, 5, 10)
USERS = 100
USER_SD, NOISE_SD, LUCK = 0.035, 0.106, 0.005
"""Of one arm's values: a difference of two has root 2 times as much (`benchmarks/coverage.py`)."""
POWER_USERS = 943
GAINS = (0.010, 0.029)
Steps = tuple[float, float, float]
"""True difference of knowledge from its baseline, its best control, and the reference."""


@dataclass(frozen=True)
class World:
    """What is true: the steps of one half of the models, and of the other."""

    name: str
    first: Steps
    second: Steps


WORLDS = (
    World("nothing is better", (0, 0, 0), (0, 0, 0)),
    World("half are better in all", (0.1, 0.1, 0.1), (0, 0, 0)),
    World("half above baselines, not above controls", (0.1, 0, 0), (0, 0, 0)),
    World("half above controls, not above the reference", (0.1, 0.1, 0), (0, 0, 0)),
    World("half are worse", (-0.1, -0.1, -0.1), (0, 0, 0)),
    World("half are worse by very little", (-0.001, -0.001, -0.001), (0, 0, 0)),
)


def main(arguments: list[str] | None = None) -> None:
    """Print family-wise errors and power; JSON if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="150 draws, 2 models")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    draws, models = (150, 2) if options.quick else (options.draws, options.models)
    console = Console(stderr=options.json, width=120)
    errors = {
        world.name: {n: family_wise_error(world, n, models, draws) for n in REPLICATES}
        for world in WORLDS
    }
    title = f"Share of experiments with any false verdict: {models} models, {draws} draws"
    console.print(_table(title, "replicates", errors))
    found = {
        f"{gain:+.3f}": {n: power(gain, n, draws) for n in (3, *REPLICATES[2:])} for gain in GAINS
    }
    console.print(_table("Power of step A, one model, 943 users", "replicates", found))
    if options.json:
        print(json.dumps({"family_wise_error": errors, "power": found}))


def family_wise_error(world: World, replicates: int, models: int, draws: int) -> float:
    """Share of draws with a false verdict."""
    generator = np.random.default_rng([replicates, models, *world.name.encode()])
    false = 0
    for _ in range(draws):
        truths = [world.first if n < models / 2 else world.second for n in range(models)]
        reference = _arm(generator, replicates, USERS)
        chains = [_chain(generator, truth, reference) for truth in truths]
        decisions = decide(chains)
        false += any(
            decision.rejected and (truth <= 0 if evidence.positive else truth >= 0)
            for chain, steps, truth_of in zip(chains, decisions, truths, strict=True)
            for evidence, decision, truth in zip(chain, steps, truth_of, strict=True)
        )
    return false / draws


def power(gain: float, replicates: int, draws: int) -> float:
    """Share of draws in which one model's true gain over its baseline is found."""
    generator = np.random.default_rng([replicates, round(gain * 1e6)])
    found = 0
    for _ in range(draws):
        arm, baseline = (_arm(generator, replicates, POWER_USERS) for _ in range(2))
        found += decide([[_evidence(arm + gain, baseline)]])[0][0].rejected
    return found / draws


def _arm(generator: np.random.Generator, replicates: int, users: int) -> Floats:
    """An arm's values without any gain: float64 (replicates, users)."""
    return np.asarray(
        generator.normal(0, LUCK, (replicates, 1))
        + generator.normal(0, USER_SD, (1, users))
        + generator.normal(0, NOISE_SD, (replicates, users))
    )


def _chain(generator: np.random.Generator, truth: Steps, reference: Floats) -> list[Evidence]:
    """The evidence of a model's three steps; one control is as good as said, one is worse."""
    baseline, good, poor, knowledge = (_arm(generator, *reference.shape) for _ in range(4))
    above_controls = [
        _evidence(knowledge, good - truth[1]),
        _evidence(knowledge, poor - truth[1] - 0.02),
    ]
    largest = max(each.p or 0.0 for each in above_controls)
    return [
        _evidence(knowledge, baseline - truth[0]),
        Evidence(largest, all(each.positive for each in above_controls)),
        _evidence(knowledge, reference - truth[2]),
    ]


def _evidence(arm: Floats, other: Floats) -> Evidence:
    found = compare(arm, other)
    return Evidence(found.p_value, (found.difference or 0.0) > 0)


def _table(title: str, columns: str, rows: dict[str, dict[int, float]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns)
    for n in next(iter(rows.values())):
        table.add_column(str(n), justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in values.values()))
    return table


if __name__ == "__main__":
    main()
