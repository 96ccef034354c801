"""Training, as worker processes do it, which start fast because they need no Prefect."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from models.config import Job, Side
from models.errors import BadInput
from models.recommenders.registry import entry
from tasks.execution.devices import torch_device
from tasks.execution.progress import Tracker
from tasks.execution.worker_pool import worker_number
from tasks.storage.artifacts import Handle, write_bytes, write_parquet
from tasks.training.checkpoint_files import CheckpointFile
from tasks.training.model_tables import Inputs, scoring, vectors_of
from tasks.training.outputs import Trained

if TYPE_CHECKING:
    from models.recommenders.recommender import Recommender
    from models.transfer.wrapper import ModelWrapper, Targets


TrainedModel = tuple[Job, Handle, Inputs]
"""A training, its weights and what it read: all that the model is rebuilt from."""


def _use_threads(n: int) -> None:
    """Compute with `n` threads: the last bits of matrix products depend on how many there are."""
    import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which has to be loaded by now
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(n)
    threadpool_limits(n, user_api="blas")


def train(
    job: Job,
    inputs: Inputs,
    tracker: Tracker,
    flow_run_id: str | None,
    key: str,
    keep_weights: bool = True,
) -> Trained:
    """Train one model and rank the catalogue for every user with training interactions.

    A killed training goes on from the checkpoint of its cache key.

    Raises:
        BadInput: if the loss is no longer finite; names the best weights until then.
    """
    from safetensors.torch import save

    from models.training.training_loop import Diverged, fit

    started_at = datetime.now(UTC)
    _use_threads(job.budget.threads)
    recommender, wrapper = _prepared(job, inputs)
    validate, result, sampling_error = scoring(recommender, job, inputs.valid)
    checkpoints = CheckpointFile(key, str(recommender.device))
    try:
        fitted = fit(recommender, wrapper, validate, job.budget, job.seed, tracker, checkpoints)
    except Diverged as error:
        if not error.weights:
            raise BadInput(str(error)) from error
        kept = write_bytes("weights", ".safetensors", save(error.weights))
        raise BadInput(f"{error} The best weights until then are in {kept.file}.") from error
    valid_error = sampling_error()  # before the rankings, since a sequential model then knows more
    return Trained(
        job=job,
        rankings=write_parquet("training", result(), inputs.handles(), job.identity()),
        weights=(
            write_bytes("weights", ".safetensors", save(recommender.weights()))
            if keep_weights
            else None
        ),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        train_seconds=fitted.seconds,
        flow_run_id=flow_run_id,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        valid_error=valid_error,
    )


def refit(judged: Trained, inputs: Inputs, whole: Inputs, tracker: Tracker, key: str) -> Handle:
    """Train a judged model's settings on all interactions; the weights of the last epoch.

    A model that can starts from the judged weights and repeats the second half of the judged
    epochs, in their phases; another trains all of them. Nothing is chosen, so nothing is validated.
    `inputs` is what the judged model was trained on, `whole` has all interactions for `train`.
    """
    from safetensors.torch import save

    from models.training.training_loop import fit

    job, epochs = judged.job, range(judged.best_epoch + 1)
    _use_threads(job.budget.threads)
    begins_with_transfer = job.transfer is not None and job.transfer.method.before_training
    if entry(job.model).loader is not None and job.kar is None and not begins_with_transfer:
        whole = replace(whole, initial=starting_point(job, judged.kept_weights, inputs))
        epochs = epochs[len(epochs) // 2 :]
    recommender, wrapper = _prepared(job, whole)
    checkpoints = CheckpointFile(key, str(recommender.device))
    fit(recommender, wrapper, None, job.budget, job.seed, tracker, checkpoints, epochs)
    return write_bytes("weights", ".safetensors", save(recommender.weights()))


def predict(job: Job, weights: Handle, inputs: Inputs, test: Handle) -> Handle:
    """Write the trained model's `PREDICTIONS` of the test part's pairs."""
    _use_threads(job.budget.threads)
    device = torch_device(job.budget, worker_number())
    _, result, _ = scoring(trained_model(job, weights, inputs, device), job, test)
    known = {**inputs.handles(), "weights": weights, "test": test}
    return write_parquet("predictions", result(), known, job.identity())


def _built(job: Job, inputs: Inputs, device: str) -> tuple["Recommender", "dict[Side, Targets]"]:
    """The recommender with fresh weights and a comparator's texts, all targets by internal ids."""
    from models.recommenders.recommender import Recommender

    log, universe = inputs.log(job.like_from), inputs.universe()
    given, precision = job.hyperparameters, job.budget.precision
    recommender = Recommender(job.model, given, log, universe, job.seed, device, precision)
    aligned = {
        side: recommender.align(*vectors_of(handle), side)
        for side, handle in inputs.targets.items()
    }
    if job.kar is not None:
        recommender.rebuild_with_features(job.kar, aligned)
    return recommender, aligned


def _prepared(job: Job, inputs: Inputs) -> tuple["Recommender", "ModelWrapper"]:
    """The recommender with its start and its arm's knowledge, if any."""
    from models.recommenders.tap_probe import tapped_layer
    from models.recommenders.teaching import lesson
    from models.transfer.wrapper import Knowledge, ModelWrapper

    recommender, aligned = _built(job, inputs, torch_device(job.budget, worker_number()))
    if inputs.initial is not None:
        _start_warm(recommender, job, inputs.initial)
    if job.transfer is None:
        return recommender, ModelWrapper(recommender)
    if recommender.entry.takes_embeddings:
        recommender.take_embeddings(job.transfer.strength, aligned)
        return recommender, ModelWrapper(recommender)
    if job.transfer.method.teaches:
        taught = lesson(recommender, job.transfer, (inputs.log(None), inputs.universe()), aligned)
        return recommender, ModelWrapper(recommender, job.transfer, (), job.seed, taught)
    knowledge = [
        Knowledge(side, *tapped_layer(job.model, job.hyperparameters, tap, side), aligned[side])
        for side, tap in job.taps.items()
    ]
    return recommender, ModelWrapper(recommender, job.transfer, knowledge, job.seed)


def trained_model(job: Job, weights: Handle, inputs: Inputs, device: str = "cpu") -> "Recommender":
    """Rebuild a recommender with its weights; nothing in them is executed. See `Handle.verify`."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(job.budget.threads)
    recommender, _ = _built(job, inputs, device)
    recommender.restore(load_file(weights.verify()))
    return recommender


def starting_point(job: Job, weights: Handle, inputs: Inputs) -> Handle:
    """Write what another training can start from: weights, and the ids of their rows."""
    from safetensors.torch import save

    from models.training.warm_start import rows_of

    recommender = trained_model(job, weights, inputs)
    tensors = recommender.weights()
    content = save(tensors, {"rows": json.dumps(rows_of(recommender))})
    return write_bytes("initial", ".safetensors", content, rows=len(tensors))


def _start_warm(recommender: "Recommender", job: Job, initial: Handle) -> None:
    from safetensors import safe_open

    from models.training.warm_start import start_from

    if job.kar is not None:
        raise BadInput(f"initial: the arm {job.arm} has no warm start. Leave it empty.")
    with safe_open(initial.verify(), "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rows = json.loads((file.metadata() or {}).get("rows", "null"))
    if rows is None:
        raise BadInput(
            f"initial: {initial.file} does not say whose its rows are. Make it by "
            "tasks.training.worker.starting_point."
        )
    start_from(recommender, weights, rows)
