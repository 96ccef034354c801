"""A small data set and the command on it, as a user would call it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which has to be loaded by now
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_world import MEDIUM

PATIENCE_SECONDS = 600
CONFIG = """
experiment: toy
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
embeddings: {{provider: hashing}}
targets: {{reduction: pca}}
models:
  BPR: {{hyperparameters: {{embedding_size: 8, train_batch_size: 64}}}}
  MultiVAE: {{hyperparameters: {{latent_dimension: 16, train_batch_size: 16}}}}
training: {{epochs: 4, patience: 2, seeds: [1, 2], workers: 1}}
evaluation: {{k: [5, 10], primary: ndcg@10}}
"""


@contextmanager
def no_workers() -> Iterator[None]:
    """Let flows train in this process: a worker takes longer to start than to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.steps.trainings.worker_pool", lambda *_: nullcontext())
        with threadpool_limits(1):  # as trainings here set it; sums depend on the number
            yield


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
    in_workers: bool = False
    """Whether trainings get processes of their own, which takes long to start."""

    def llmkt(self, *arguments: str, **environment: str) -> Done:
        """Call the command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("OPENAI_API_KEY", raising=False)
            for name, value in self._environment(environment).items():
                patch.setenv(name, value)
            with nullcontext() if self.in_workers else no_workers():
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

    def run(self, *arguments: str, apart: bool = False, **environment: str) -> dict:
        """A successful run's JSON, `apart` in a process of its own."""
        call = self.process if apart else self.llmkt
        done = call("run", str(self.config), "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one sentence of a run that ends with exit code 2."""
        done = self.llmkt("run", str(self.config), *arguments, **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def world(tmp_path_factory, prefect_server) -> World:
    folder = tmp_path_factory.mktemp("toy")
    MEDIUM.write(folder)
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
