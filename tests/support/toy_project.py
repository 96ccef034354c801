"""A small data set and the command on it, as a user would call it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.storage.artifacts import PROJECT_ROOT

PATIENCE_SECONDS = 600
CONFIG = """
experiment: toy
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
targets: {{reduction: pca}}
models:
  BPR: {{hyperparameters: {{embedding_size: 8, train_batch_size: 64}}}}
  MultiVAE: {{hyperparameters: {{latent_dimension: 16, train_batch_size: 16}}}}
training: {{epochs: 4, patience: 2, seeds: [1, 2], workers: 1}}
evaluation: {{k: [5, 10], primary: ndcg@10}}
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class World:
    """A small data set, its configuration and a data folder."""

    folder: Path
    data: Path
    config: Path
    api: str

    def llmkt(self, *arguments: str, **environment: str) -> Done:
        """Call the command in this process; trainings run here, too, so that none is started."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("OPENAI_API_KEY", raising=False)
            for name, value in self._environment(environment).items():
                patch.setenv(name, value)
            patch.setattr("flows.knowledge_transfer.crew", lambda *_: nullcontext())
            done = CliRunner().invoke(app, arguments)
        return Done(done.exit_code, done.stdout, done.stderr)

    def process(self, *arguments: str, **environment: str) -> Done:
        """Call the command as a user would, in a process of its own."""
        known = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=PROJECT_ROOT,
            env=known | self._environment(environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"LLMKT_DATA_DIR": str(self.data), "PREFECT_API_URL": self.api, **more}

    def run(self, *arguments: str, **environment: str) -> dict:
        """A successful run's JSON."""
        done = self.llmkt("run", str(self.config), "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one sentence of a run that ends with exit code 2."""
        done = self.llmkt("run", str(self.config), *arguments, **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())


def write_data(folder: Path) -> None:
    """60 users of two tastes, 40 films; some titles are unique words."""
    rng = np.random.default_rng(3)
    rows, lines = [], []
    for user in range(60):
        liked = rng.permutation(20)[:10] + 20 * (user % 2)
        rows += [f"u{user}\ti{i}\t{rng.integers(1, 6)}\t{rng.integers(1, 10**6)}" for i in liked]
    for item in range(40):
        genre = "Comedy" if item < 20 else "Horror"
        lines.append(f"i{item}\tTitle{item}word\t{1960 + item}\t{genre}")
    (folder / "toy.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "\n".join(rows) + "\n"
    )
    (folder / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\tyear:token\tgenres:token_seq\n" + "\n".join(lines) + "\n"
    )
    people = "".join(f"u{user}\tastronaut\tzip-{user}-code\n" for user in range(60))
    (folder / "toy.user").write_text("user_id:token\tjob:token\tzip:token\n" + people)


@pytest.fixture(scope="module")
def world(tmp_path_factory, prefect_server) -> World:
    folder = tmp_path_factory.mktemp("toy")
    write_data(folder)
    config = folder / "toy.yaml"
    config.write_text(CONFIG.format(folder=folder))
    return World(folder, folder / "data", config, prefect_server)


@pytest.fixture(scope="module")
def first(world) -> dict:
    return world.run()


def states(summary: dict) -> dict[str, str]:
    return {
        " ".join(filter(None, (s["name"], s["model"], s["arm"]))): s["state"]
        for s in summary["stages"]
    }
