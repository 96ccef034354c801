"""Measure how time and memory grow with the number of users, from files to the comparison.

Synthetic data: activity and popularity follow power laws; every user has five interactions or
more, 100 on average (30 at the larger sizes); items have titles, years and genres. Each size runs
in its own process, with the stages as a flow runs them: ingestion of a CSV, split, offline
profiles, embeddings, UMAP targets of 64 columns, evaluation. The text model is `hashing`, counts
of hashed words and **no language model**, so the time of the stage is that of the pipeline. The
evaluation is that of four trainings, two arms with two seeds, whose rankings are random items.

`exponent` is the b of time = a · users^b. Time is the CPU seconds of all stages, without the
start of Prefect and of the process; wall time is shown beside it. Work grows with users only at
equal interactions per user, so b is fitted by least squares within sizes of equal interactions
per user, with an a of its own for each: 10 k and 100 k users at 100, 100 k and 1 M at 30. Fixed
costs, such as UMAP's sample, make it smaller; the table has the exponent of each step and stage.

`peak_rss_gb` is that of the largest size: the peak resident memory of the process that runs the
stages, plus what Prefect's temporary server holds, in GiB.

With `--training`, models are also trained on 70 % of each size's interactions: BPR with 8 epochs
and iALS with 12 sweeps, validated after each, all users ranked once at the end
(`benchmarks/training_cost.py`). `training` in the JSON has minutes of CPU and the training's peak.

    .venv/bin/python benchmarks/scale.py [--sizes 10000x100,100000x100,…] [--training] [--json]
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from prefect import flow
from rich.console import Console
from rich.table import Table

from benchmarks.synthetic import Size, generate
from flows.steps.knowledge import KnowledgeSteps
from flows.steps.stage_runner import StageRunner
from models.config import Job, Pipeline, Side, Tap
from models.profiles.prompt_templates import Template
from models.schemas import ITEM, RANKINGS, USER, Epoch
from tasks.dataset.interactions_task import interactions
from tasks.dataset.outputs import Interactions
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split
from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.inputs import Part
from tasks.execution.stage import Stage
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.targets.targets_task import targets
from tasks.training.outputs import Trained

PROJECT = Path(__file__).resolve().parent.parent
SIZES = "10000x100,100000x100,100000x30,1000000x30"
STAGES = ("interactions", "split", "profiles", "embeddings", "targets", "evaluation")
WIDTH = 64
EPOCHS = {"BPR": 8, "iALS": 12}


@dataclass(frozen=True)
class Run:
    """What one size took."""

    size: Size
    interactions: int
    seconds: dict[str, float]
    """Wall time by stage."""
    cpu: dict[str, float]
    """Of all threads, by stage."""
    peak_rss_gb: float
    peaks: dict[str, float]
    """GiB of the process alone, after each stage that could raise it."""
    megabytes: dict[str, float]
    """On disk, by folder of artifacts."""

    @property
    def total(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.cpu.values())


def main(arguments: list[str] | None = None) -> None:
    """Measure in a temporary folder; print a table, and one line of JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=SIZES, help="users x interactions of each on average")
    parser.add_argument("--reduction", choices=("umap", "pca"), default="umap")
    parser.add_argument("--keep", type=Path, help="where to leave the data folders")
    parser.add_argument("--training", action="store_true", help="train BPR and iALS, too")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes = [Size.parse(text) for text in options.sizes.split(",")]
    if options.one:
        run_stages(options.one, options.reduction)
        return
    console, runs = Console(stderr=True), list[Run]()
    with tempfile.TemporaryDirectory(dir=options.keep) as folder:
        for size in sizes:
            runs.append(measure(size, Path(folder), options.reduction))
            console.print(runs[-1])
    trained = [training(size, model) for size in sizes for model in EPOCHS if options.training]
    Console(stderr=options.json).print(table_of(runs), *trained, sep="\n")
    if options.json:
        line = {"exponent": exponent_of(runs), "peak_rss_gb": peak_of(runs)}
        print(json.dumps(line | ({"training": trained} if trained else {})))


def training(size: Size, model: str) -> dict[str, Any]:
    """Train on one size in a process of its own: users, interactions, minutes of CPU, GiB."""
    options = {
        "--model": model,
        "--epochs": EPOCHS[model],
        "--batch": 65_536,
        "--users": size.users,
        "--items": size.items,
        "--each": size.each * 7 // 10,
    }
    command = [sys.executable, "-m", "benchmarks.training_cost", "--json"]
    for option, value in options.items():
        command += [option, str(value)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    figures = {name: found[name] for name in ("model", "users", "interactions", "minutes")}
    return figures | {"peak_gb": found["peak_rss_gb"]}


def peak_of(runs: Sequence[Run]) -> float:
    """Of the largest size."""
    return round(max(runs, key=lambda run: run.size.users).peak_rss_gb, 2)


def exponent_of(runs: Sequence[Run], stage: str | None = None) -> float | None:
    """The slope of log time over log users, common to groups of equal interactions per user.

    Args:
        runs: at least two of one group; others decide nothing.
        stage: of this stage alone.
    """
    groups = defaultdict[int, list[tuple[float, float]]](list)
    for run in runs:
        seconds = run.total if stage is None else run.cpu[stage]
        groups[run.size.each].append((np.log(run.size.users), np.log(max(seconds, 1e-3))))
    centred = np.concatenate(
        [np.array(group) - np.mean(group, axis=0) for group in groups.values()]
    )
    spread = float((centred[:, 0] ** 2).sum())
    return round(float(centred[:, 0] @ centred[:, 1]) / spread, 3) if spread else None


def measure(size: Size, folder: Path, reduction: str) -> Run:
    """Make the data of one size, and run the stages on it in a process of its own."""
    home = folder / f"{size.users}x{size.each}"
    home.mkdir()
    n = generate(size, home)
    done = subprocess.run(
        # As a module: beside this script, coverage.py would stand in for numba's coverage.
        [sys.executable, "-m", "benchmarks.scale", "--one", str(home), "--reduction", reduction],
        cwd=PROJECT,
        env={
            **os.environ,
            "LLMKT_DATA_DIR": str(home / "data"),
            "PYTHONPATH": str(PROJECT),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # of a busy machine
        },
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{size} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    artifacts = home / "data" / "artifacts"
    found["megabytes"] = {stage.name: _megabytes(stage) for stage in sorted(artifacts.iterdir())}
    found["megabytes"]["embeddings.sqlite"] = _megabytes(home / "data" / "embeddings.sqlite")
    shutil.rmtree(home)
    return Run(size=size, interactions=n, **found)


def _megabytes(place: Path) -> float:
    files = place.rglob("*") if place.is_dir() else place.parent.glob(f"{place.name}*")
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)


def run_stages(home: Path, reduction: str) -> None:
    """Run the stages on the files in `home`; the last line is JSON: seconds and peak memory."""
    pipeline = Pipeline.model_validate(
        {
            "experiment": "scale",
            "dataset": {
                "interactions": str(home / "interactions.csv"),
                "items": str(home / "items.csv"),
                "columns": {"title": "title", "year": "year", "genres": "genres"},
            },
            "embeddings": {"provider": "hashing"},
            "targets": {"reduction": reduction},
            "models": {"BPR": {}},
            "training": {"seeds": [1, 2]},
        }
    )
    stages = _Measured()
    jobs = pipeline.jobs({"BPR": {"users": Tap(name="user_embedding")}})

    @flow(name="scale")
    def to_comparison() -> None:
        data = stages.run(interactions, pipeline.dataset, raw_files(pipeline.dataset))
        parts = stages.run(split, pipeline.split, data.interactions)
        steps = KnowledgeSteps(pipeline, data, parts, stages)
        [described] = steps.describe({"users": Template(text="")}, {})
        vectors = described.embedded.embeddings
        stages.run(targets, pipeline.targets_of("BPR"), vectors, WIDTH, side="users")
        trained = tuple(ranked_at_random(data, job) for job in jobs)
        part = Part(
            pipeline=pipeline,
            splits=parts,
            described=(described,),
            items=data.items,
            trained=trained,
        )
        stages.run(evaluation, "scale", [part])

    to_comparison()
    peak = _peak() + stages.others_gb
    seconds = {record.name: record.seconds for record in stages.records}
    found = {"seconds": seconds, "cpu": stages.cpu, "peak_rss_gb": peak, "peaks": stages.peaks}
    print(json.dumps(found))


def ranked_at_random(data: Interactions, job: Job) -> Trained:
    """A training as the evaluation sees it: `job.k` random items for every user and split."""
    rng = np.random.default_rng([job.seed, *job.arm.encode()])
    users, items = read_parquet(data.users)[USER], read_parquet(data.items)[ITEM].combine_chunks()
    offsets = np.arange(0, (len(users) + 1) * job.k, job.k, dtype=np.int32)

    def ranking(split: str) -> pa.Table:
        drawn = rng.integers(0, len(items), len(users) * job.k)
        columns = [
            pa.repeat(split, len(users)),
            users,
            pa.ListArray.from_arrays(offsets, items.take(pa.array(drawn))),
            pa.ListArray.from_arrays(offsets, pa.array(rng.random(len(drawn), dtype=np.float32))),
        ]
        return pa.table(columns, schema=RANKINGS)

    rankings = write_parquet("training", pa.concat_tables([ranking("valid"), ranking("test")]))
    epoch = Epoch(
        phase="train", epoch=0, model_loss=0, transfer_loss=None, valid_score=0, seconds=0
    )
    now = datetime.now(UTC)
    return Trained(
        job=job,
        rankings=rankings,
        weights=None,
        epochs=(epoch,),
        best_epoch=0,
        train_seconds=0,
        flow_run_id=None,
        started_at=now,
        finished_at=now,
    )


class _Measured(StageRunner):
    """Notes of each stage its CPU seconds, and the process's peak memory up to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu, self.peaks = dict[str, float](), dict[str, float]()
        self.others_gb = 0.0
        """Of the child processes, which is Prefect's server: the most at the end of a stage."""

    def run(self, stage: Stage, *inputs: Any, side: Side | None = None) -> Any:
        began = process_time()
        result = super().run(stage, *inputs, side=side)
        self.cpu[stage.name] = round(process_time() - began, 2)
        self.peaks[stage.name] = round(_peak(), 2)
        others = (child.memory_info().rss for child in psutil.Process().children(recursive=True))
        self.others_gb = max(self.others_gb, sum(others) / 2**30)
        print(stage.name, self.records[-1].seconds, self.cpu, self.peaks, file=sys.stderr)
        return result


def _peak() -> float:
    """Resident memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table_of(runs: Sequence[Run]) -> Table:
    """One line per size, and one with the exponents."""
    table = Table(title="Seconds per stage; text model: hashing, no language model")
    for column in ("users", "interactions", *STAGES, "all", "exponent", "peak GiB", "disk MB"):
        table.add_column(column, justify="right")
    for run in runs:
        before = [
            other for other in runs if other.size.each == run.size.each and other.size != run.size
        ]
        smaller = [other for other in before if other.size.users < run.size.users]
        step = (
            exponent_of([max(smaller, key=lambda other: other.size.users), run])
            if smaller
            else None
        )
        table.add_row(
            f"{run.size.users:,}",
            f"{run.interactions:,}",
            *(f"{run.seconds[stage]:.1f}" for stage in STAGES),
            f"{run.total:.1f}",
            "" if step is None else f"{step:.2f}",
            f"{run.peak_rss_gb:.2f}",
            f"{sum(run.megabytes.values()):,.0f}",
        )
    slopes = [exponent_of(runs, stage) for stage in (*STAGES, None)]
    if None not in slopes:
        table.add_section()
        table.add_row("exponent", "", *(f"{slope:.2f}" for slope in slopes), "", "", "")
    return table


if __name__ == "__main__":
    main()
