"""Compare a GPU with the CPU: the tests that need one, epochs of five models and their NDCG@10.

The same models, seeds and batches on both devices, in turns, on the 70 % training part of ml-100k.
Seconds are medians per epoch over all seeds; a ratio is the CPU's over the GPU's. `within noise`
means that the mean NDCG@10 on validation differs by at most three standard errors of seeds. It ends
with exit code 1 if a test fails or a model is not within noise.

    .venv/bin/python -m benchmarks.gpu [--models BPR,NeuMF] [--epochs 10] [--json]

Without a GPU, the CPU takes both sides, so that everything but CUDA is tried.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.movielens import MovieLens
from benchmarks.ours import Ours
from benchmarks.training_speed import MODELS, SETTINGS, seconds_of

SEEDS = (1, 2, 3)
TESTS = "tests/execution/test_devices.py"


def main(arguments: list[str] | None = None) -> None:
    """Test, measure, and print a table, or one line of JSON if asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    card = torch.cuda.get_device_name() if has_gpu else "no GPU: the CPU on both sides"
    tests_pass = not has_gpu or _tests_pass()
    data = MovieLens.read()
    found = {model: compare(model, data, device, options.epochs) for model in options.models}
    if options.json:
        print(json.dumps({"card": card, "tests_pass": tests_pass, "models": found}))
    else:
        Console().print(_table(card, found))
    if not tests_pass or not all(figures["within noise"] for figures in found.values()):
        sys.exit(1)


def compare(model: str, data: MovieLens, device: str, epochs: int) -> dict[str, Any]:
    """Train on both devices in turns; returns ratios, both mean NDCG@10, and whether they agree."""
    devices = {"CPU": "cpu", "GPU": device}
    train, valid, scores = ({side: list[float]() for side in devices} for _ in range(3))
    for seed in SEEDS:
        sides = {side: Ours(model, SETTINGS, data, seed, of) for side, of in devices.items()}
        for _ in range(epochs):
            for side, ours in sides.items():
                train[side].append(seconds_of(ours.train_epoch, device))
                valid[side].append(seconds_of(ours.validate, device))
        for side, ours in sides.items():
            scores[side].append(ours.validate())
    cpu, gpu = (statistics.mean(values) for values in scores.values())
    error = sum(statistics.variance(values) / len(values) for values in scores.values()) ** 0.5
    return {
        "CPU s": round(statistics.median(train["CPU"]), 4),
        "GPU s": round(statistics.median(train["GPU"]), 4),
        "training": _ratio(train),
        "validation": _ratio(valid),
        "NDCG@10 on CPU": round(cpu, 4),
        "on GPU": round(gpu, 4),
        "within noise": abs(cpu - gpu) <= 3 * error,
    }


def _ratio(seconds: dict[str, list[float]]) -> float:
    return round(statistics.median(seconds["CPU"]) / statistics.median(seconds["GPU"]), 2)


def _tests_pass() -> bool:
    """Run the tests that are skipped where there is no GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "gpu", TESTS]
    root = Path(__file__).parent.parent
    return subprocess.run(command, cwd=root, check=False, stdout=sys.stderr).returncode == 0


def _table(card: str, found: dict[str, dict[str, Any]]) -> Table:
    table = Table("model", *next(iter(found.values())), title=card)
    for model, figures in found.items():
        table.add_row(model, *map(str, figures.values()))
    return table


if __name__ == "__main__":
    main()
