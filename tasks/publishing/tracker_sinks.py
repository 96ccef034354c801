"""Sinks: a version as a run of TensorBoard or Weights & Biases, with its epochs and metrics."""

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from models.config import Sink
from models.errors import BadInput
from tasks.publishing.manifest import Manifest
from tasks.storage.artifacts import data_dir


def facts(version: Manifest) -> dict[str, Any]:
    """What the model was trained as."""
    job = version.job
    known = {"model": job.model, "arm": job.arm, "seed": job.seed, "dataset": version.dataset}
    return job.hyperparameters | known


def scalars(version: Manifest) -> Iterator[tuple[int, dict[str, float]]]:
    """Metrics and differences of the decision, at step 0, then every epoch's values."""
    epochs = ((epoch.epoch, epoch.model_dump(exclude={"epoch"})) for epoch in version.epochs)
    for step, found in ((0, version.decision.model_dump() | version.metrics), *epochs):
        yield step, {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


def to_tensorboard(version: Manifest, sink: Sink) -> None:
    """Write event files to `URL/EXPERIMENT/VERSION`, all at once."""
    from torch.utils.tensorboard import SummaryWriter

    final = Path(str(sink.url)).expanduser() / version.experiment / version.version
    part = final.with_name(f".{final.name}")
    for old in (part, final):
        shutil.rmtree(old, ignore_errors=True)
    with SummaryWriter(str(part)) as writer:
        writer.add_text("trained as", str(facts(version)))
        for step, values in scalars(version):
            for name, value in values.items():
                writer.add_scalar(name, value, step)
    part.rename(final)


def to_wandb(version: Manifest, sink: Sink) -> None:
    """Log a run whose id is the version; WANDB_MODE=offline keeps it in the data folder."""
    try:
        wandb: Any = import_module("wandb")
    except ImportError as error:
        raise BadInput("the package wandb is missing. Install it.") from error
    key = os.environ.get(sink.password_env or "")
    settings = wandb.Settings(base_url=str(sink.url), api_key=key, silent=True, resume="allow")
    named = {"project": version.experiment, "id": version.version, "config": facts(version)}
    with wandb.init(**named, dir=data_dir(), settings=settings) as run:
        for step, values in scalars(version):
            run.log(values, step=step)
