"""Compare the cost of a night with 1 % new interactions, cold and warm, with a first night.

ml-100k with `configs/nightly.yaml`. The first night computes everything on the oldest 99 % of the
interactions. Then the newest 1 % arrives, and two nights continue from copies of the same data
folder, one from fresh weights and one from the champion's. Each night is a command in its own
process, so its time includes the start, and each publishes, so all refit. The first night finds no
compiled code, as on a new machine; the others find its. CPU seconds, of the command and of what it
starts, depend less on what else the machine does. NDCG@10 is that of the challenger on the same new
holdout. Later seeds share the embeddings of the first one, so only the times of the first seed
are reported.

    .venv/bin/python benchmarks/nightly_cost.py [--seeds 3] [--json]
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
CONFIG = PROJECT / "configs" / "nightly.yaml"
NEW_SHARE = 0.01


@dataclass(frozen=True)
class Night:
    """One night: its wall time, CPU time, the stages' own, and the challenger's NDCG@10."""

    seconds: float
    cpu: float
    stages: float
    ndcg: float


def main(arguments: list[str] | None = None) -> None:
    """Measure in a temporary folder; print a table, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings to compare by")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        nights = measure(Path(folder), range(1, options.seeds + 1))
    Console(stderr=options.json).print(_table(nights))
    if options.json:
        print(json.dumps(_summary(nights)))


def measure(folder: Path, seeds: Sequence[int]) -> dict[str, list[Night]]:
    """The nights `first`, `cold` and `warm` of every seed."""
    dataset = folder / "ml-100k"
    dataset.mkdir()
    news = _divide(dataset)
    nights: dict[str, list[Night]] = {"first": [], "cold": [], "warm": []}
    kept = folder / "kept"
    for seed in seeds:
        data = folder / f"seed-{seed}"
        if kept.exists():
            data.mkdir()
            shutil.copy(kept, data / "embeddings.sqlite")
        nights["first"].append(_night(data, dataset, seed))
        shutil.copy(data / "embeddings.sqlite", kept)
        for start in ("cold", "warm"):
            of_start = folder / f"seed-{seed}-{start}"
            shutil.copytree(data, of_start, symlinks=True)
            (of_start / "incoming").mkdir(exist_ok=True)
            (of_start / "incoming" / "news.inter").write_text(news)
            nights[start].append(_night(of_start, dataset, seed, f"nightly.start={start}"))
    return nights


def _divide(dataset: Path) -> str:
    """Write the data set without its newest interactions; returns those as a drop."""
    shipped = files("recbole") / "dataset_example" / "ml-100k"
    header, *rows = (shipped / "ml-100k.inter").read_text().splitlines()
    rows.sort(key=lambda row: float(row.split("\t")[3]))
    first_new = round(len(rows) * (1 - NEW_SHARE))
    (dataset / "ml-100k.inter").write_text("\n".join([header, *rows[:first_new]]) + "\n")
    (dataset / "ml-100k.item").write_bytes((shipped / "ml-100k.item").read_bytes())
    return "\n".join([header, *rows[first_new:]]) + "\n"


def _night(data: Path, dataset: Path, seed: int, *overrides: str) -> Night:
    settings = (
        f"dataset.path={dataset}",
        f"nightly.seed={seed}",
        "nightly.settle_seconds=0",
        "nightly.min_new_interactions=0",
        "nightly.tolerance=1",
        *overrides,
    )
    command = [sys.executable, "-m", "flows.cli", "nightly", str(CONFIG), "--json"]
    for setting in settings:
        command += ["--set", setting]
    began, cpu = perf_counter(), _cpu_of_children()
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "LLMKT_DATA_DIR": str(data), "NUMBA_CACHE_DIR": str(data / "compiled")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr or f"{' '.join(command)} ended with {done.returncode}")
    ended: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Night(
        seconds=perf_counter() - began,
        cpu=_cpu_of_children() - cpu,
        stages=sum(stage["seconds"] for stage in ended["stages"]),
        ndcg=ended["promotion"]["challenger_mean"],
    )


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table(nights: dict[str, list[Night]]) -> Table:
    first = nights["first"][0]
    table = Table(title=f"A night with {NEW_SHARE:.0%} new interactions, ml-100k")
    titles = "night", "wall seconds", "stages", "CPU seconds", "of a first night", "NDCG@10 (seeds)"
    for column in titles:
        table.add_column(column, justify="left" if column == "night" else "right")
    for name, each in nights.items():
        scores = [night.ndcg for night in each]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        table.add_row(
            name,
            f"{each[0].seconds:.1f}",
            f"{each[0].stages:.1f}",
            f"{each[0].cpu:.1f}",
            f"{each[0].seconds / first.seconds:.2f} (CPU: {each[0].cpu / first.cpu:.2f})",
            f"{statistics.mean(scores):.4f}{spread} ({len(scores)})",
        )
    return table


def _summary(nights: dict[str, list[Night]]) -> dict[str, Any]:
    first = nights["first"][0]
    return {
        "ratio": {n: round(nights[n][0].seconds / first.seconds, 3) for n in ("cold", "warm")},
        "cpu_ratio": {n: round(nights[n][0].cpu / first.cpu, 3) for n in ("cold", "warm")},
        "cpu_seconds": {name: round(each[0].cpu, 1) for name, each in nights.items()},
        "ndcg": {name: [round(night.ndcg, 5) for night in each] for name, each in nights.items()},
    }


if __name__ == "__main__":
    main()
