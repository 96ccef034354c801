"""Measure how often 95 % intervals cover the true difference, by number of seeds.

Simulated arms have no true difference. Users differ in how the arm suits them, each training
varies by chance, and each user's value under each training has its own noise. There are three
worlds of variation between trainings: none; as on ml-100k, where the mean NDCG@10 of two
trainings of one arm differs with a standard deviation of 0.005; and four times as much. A 95 %
interval should cover 0 in 95 of 100 draws. An interval that covers it less often reports chance
as a gain.

crossed: random effects of seeds and users, each with its own degrees of freedom
(`models.statistics.paired_comparison`), the interval of the verdicts; pooled: the same variances
with Satterthwaite's degrees of freedom; seeds: Student's t over the means of seeds; users:
Student's t over the means of users, seeds ignored.

Corrections for many contrasts need p-values far below 0.05, where `pooled` errs most. A second
table counts how often crossed and pooled find p < 0.001 without a true difference.

    .venv/bin/python benchmarks/coverage.py [--draws 1000] [--users 300] [--json]
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from models.arrow import Floats
from models.statistics.paired_comparison import compare

SEEDS = (2, 3, 5, 10)
USER_SD, NOISE_SD = 0.05, 0.15
"""Of NDCG@10's difference on ml-100k: what a user brings, and what is one training's alone."""
LUCK = {"no luck": 0.0, "as on ml-100k": 0.007, "four times that": 0.028}
"""Standard deviation of a difference of two trainings' means: 0.005 for each, times root 2."""
ALARM_DRAWS = 200_000


def main(arguments: list[str] | None = None) -> None:
    """Print coverage and mean width per world, number of seeds and method; JSON if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    console = Console(stderr=options.json)
    found = {
        world: {seeds: measure(luck, seeds, options.users, options.draws) for seeds in SEEDS}
        for world, luck in LUCK.items()
    }
    for world, of_seeds in found.items():
        console.print(_table(world, of_seeds))
    alarms = {
        world: {seeds: false_alarms(luck, seeds, options.users) for seeds in SEEDS}
        for world, luck in LUCK.items()
    }
    console.print(_alarm_table(alarms))
    if options.json:
        print(json.dumps({"coverage": found, "false_alarms": alarms}))


Measured = dict[str, dict[str, float]]


def measure(luck: float, seeds: int, users: int, draws: int) -> Measured:
    """Share of intervals that hold the true difference, 0, and their mean width, per method."""
    hit: dict[str, list[bool]] = {}
    width: dict[str, list[float]] = {}
    generator = np.random.default_rng([seeds, round(luck * 1e6)])
    for _ in range(draws):
        differences = (
            generator.normal(0, luck, (seeds, 1))
            + generator.normal(0, USER_SD, (1, users))
            + generator.normal(0, NOISE_SD, (seeds, users))
        )
        for method, (low, high) in _intervals(differences):
            hit.setdefault(method, []).append(low <= 0 <= high)
            width.setdefault(method, []).append(high - low)
    return {
        method: {"coverage": float(np.mean(hit[method])), "width": float(np.mean(width[method]))}
        for method in hit
    }


def _intervals(differences: Floats) -> Iterator[tuple[str, tuple[float, float]]]:
    for method, values in (("crossed", differences), ("users", differences.mean(0)[None])):
        found = compare(values, np.zeros_like(values))
        assert found.ci_low is not None
        assert found.ci_high is not None
        yield method, (found.ci_low, found.ci_high)
    mean, reach = float(differences.mean()), float(_pooled(*_squares(differences), 0.05))
    yield "pooled", (mean - reach, mean + reach)
    means = differences.mean(axis=1)
    reach = stdtrit(len(means) - 1, 0.975) * means.std(ddof=1) / np.sqrt(len(means))
    yield "seeds", (float(means.mean() - reach), float(means.mean() + reach))


def _squares(differences: Floats) -> tuple[Floats, Floats, Floats, int, int]:
    """Mean squares of seeds, users and residuals; how many seeds and users."""
    seeds, users = differences.shape
    of_seeds, of_users = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - of_seeds[:, None] - of_users + differences.mean()
    ms_e = (rest**2).sum() / ((seeds - 1) * (users - 1))
    return users * of_seeds.var(ddof=1), seeds * of_users.var(ddof=1), ms_e, seeds, users


def _pooled(
    ms_a: Floats, ms_b: Floats, ms_e: Floats, seeds: int, users: int, tails: float
) -> Floats:
    """Half the interval's width by Satterthwaite's degrees of freedom."""
    df_a, df_b = seeds - 1, users - 1
    variance = np.maximum(np.maximum(ms_a + ms_b - ms_e, ms_a), ms_b)
    spread = ms_a**2 / df_a + ms_b**2 / df_b + ms_e**2 / (df_a * df_b)
    t = stdtrit(np.maximum(variance**2 / spread, 1.0), 1 - tails / 2)
    return np.asarray(t * np.sqrt(variance / (seeds * users)))


def _own(ms_a: Floats, ms_b: Floats, ms_e: Floats, seeds: int, users: int, tails: float) -> Floats:
    """Likewise as `models.statistics.paired_comparison` has it, for many draws at once."""
    t_a, t_b = stdtrit(seeds - 1, 1 - tails / 2), stdtrit(users - 1, 1 - tails / 2)
    both = t_a**2 * ms_a + t_b**2 * np.maximum(ms_b - ms_e, 0)
    return np.asarray(np.sqrt(np.maximum(both, t_b**2 * ms_b) / (seeds * users)))


def false_alarms(luck: float, seeds: int, users: int, tails: float = 0.001) -> dict[str, float]:
    """Share of draws of nothing with a p-value below `tails`; mean squares are drawn directly."""
    generator = np.random.default_rng([seeds, round(luck * 1e6)])
    df_a, df_b = seeds - 1, users - 1
    noise = NOISE_SD**2
    theta_a, theta_b = noise + users * luck**2, noise + seeds * USER_SD**2
    ms_a, ms_b, ms_e = (
        theta * generator.chisquare(df, ALARM_DRAWS) / df
        for theta, df in ((theta_a, df_a), (theta_b, df_b), (noise, df_a * df_b))
    )
    sd = np.sqrt((theta_a + theta_b - noise) / (seeds * users))
    means = np.abs(generator.normal(0, sd, ALARM_DRAWS))
    return {
        name: float((means > reach(ms_a, ms_b, ms_e, seeds, users, tails)).mean())
        for name, reach in (("crossed", _own), ("pooled", _pooled))
    }


def _alarm_table(alarms: dict[str, dict[int, dict[str, float]]]) -> Table:
    table = Table(title="p < 0.001 where there is nothing, per 1000", title_justify="left")
    for column in ("world", "seeds", "crossed", "pooled"):
        table.add_column(column, justify="left" if column == "world" else "right")
    for world, of_seeds in alarms.items():
        for seeds, rates in of_seeds.items():
            table.add_row(world, str(seeds), *(f"{1000 * rate:.1f}" for rate in rates.values()))
    return table


def _table(world: str, of_seeds: dict[int, Measured]) -> Table:
    table = Table(title=f"{world}: coverage of 95 % intervals (mean width)", title_justify="left")
    table.add_column("seeds", justify="right")
    for method in next(iter(of_seeds.values())):
        table.add_column(method, justify="right")
    for seeds, methods in of_seeds.items():
        cells = [f"{method['coverage']:.3f} ({method['width']:.3f})" for method in methods.values()]
        table.add_row(str(seeds), *cells)
    return table


if __name__ == "__main__":
    main()
