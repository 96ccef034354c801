"""Training, as worker processes do it, which start fast because they need no Prefect."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from models.config import Job, parse_metric
from models.errors import BadInput
from models.recommenders.registry import precision_of
from models.schemas import ITEM, RATING, USER
from tasks.execution.devices import torch_device
from tasks.execution.progress import Tracker
from tasks.execution.worker_pool import worker_number
from tasks.storage.artifacts import Handle, read_parquet, write_bytes, write_parquet
from tasks.training.checkpoint_files import CheckpointFile
from tasks.training.inputs import Inputs, column_of, log_of, pairs_of, universe_of, vectors_of
from tasks.training.outputs import Trained
from tasks.training.rankings import predictions, rankings

if TYPE_CHECKING:
    from models.recommenders.recommender import Recommender
    from models.transfer.wrapper import ModelWrapper


def _use_threads(n: int) -> None:
    """Compute with `n` threads: the last bits of matrix products depend on how many there are."""
    import scipy.linalg  # noqa: F401 - brings a BLAS of its own, which must be there to be told
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(n)
    threadpool_limits(n, user_api="blas")


def train(job: Job, inputs: Inputs, tracker: Tracker, flow_run_id: str | None, key: str) -> Trained:
    """Train one model and rank the catalogue for every user with training interactions.

    Args:
        job: what is trained.
        inputs: the artifacts that it reads.
        tracker: follows the epochs.
        flow_run_id: of the Prefect flow run, for the record.
        key: the training's cache key; a training that was killed goes on from its checkpoint.
    """
    from safetensors.torch import save

    from models.training.training_loop import Diverged, fit

    started_at = datetime.now(UTC)
    _use_threads(job.budget.threads)
    recommender, wrapper = _prepared(job, inputs)
    validate, offered = _held_out(recommender, job, inputs.valid)
    checkpoints = CheckpointFile(key, str(recommender.device))
    try:
        fitted = fit(recommender, wrapper, validate, job.budget, job.seed, tracker, checkpoints)
    except Diverged as error:
        if not error.weights:
            raise BadInput(str(error)) from error
        kept = write_bytes("weights", ".safetensors", save(error.weights))
        raise BadInput(f"{error}. The best weights until then are in {kept.file}") from error
    return Trained(
        job=job,
        rankings=write_parquet("training", offered(), inputs.handles(), job.identity()),
        weights=write_bytes("weights", ".safetensors", save(recommender.weights())),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        train_seconds=fitted.seconds,
        flow_run_id=flow_run_id,
        started_at=started_at,
        finished_at=datetime.now(UTC),
    )


def predict(job: Job, weights: Handle, inputs: Inputs, test: Handle) -> Handle:
    """The trained model's `PREDICTIONS` of the test part's pairs."""
    from safetensors.torch import load_file

    _use_threads(job.budget.threads)
    recommender, _ = _prepared(job, inputs)
    recommender.restore(load_file(weights.verify()))
    _, predicted = _held_out(recommender, job, test)
    known = {**inputs.handles(), "weights": weights, "test": test}
    return write_parquet("predictions", predicted(), known, job.identity())


def _held_out(
    recommender: "Recommender", job: Job, held: Handle
) -> tuple[Callable[[], float], Callable[[], pa.Table]]:
    """How the model is scored on held-out interactions, and what it offers in the end."""
    from models.evaluation.click_metrics import likes
    from models.training.validation import Clicks, Holdout

    metric, k = parse_metric(job.budget.valid_metric)
    if job.like_from is not None:
        liked = likes(read_parquet(held, [RATING])[RATING], job.like_from)
        clicks = Clicks.of(recommender, column_of(held, USER), column_of(held, ITEM), liked)
        return (
            lambda: clicks.score(recommender, metric),
            lambda: predictions(recommender, clicks),
        )
    assert k is not None
    holdout = Holdout.of(recommender, pairs_of(held))
    return (
        lambda: holdout.score(recommender, metric, k),
        lambda: rankings(recommender, holdout, job.k),
    )


def _prepared(job: Job, inputs: Inputs) -> tuple["Recommender", "ModelWrapper"]:
    """The recommender with its arm's knowledge, or none."""
    from models.recommenders.recommender import Recommender
    from models.recommenders.tap_probe import probe
    from models.transfer.wrapper import Knowledge, ModelWrapper

    log = log_of(inputs.train, job.like_from)
    recommender = Recommender(
        job.model,
        job.hyperparameters,
        log,
        universe_of(inputs),
        job.seed,
        torch_device(job.budget, worker_number()),
        precision_of(job.model, job.budget.precision),
    )
    if inputs.initial is not None:
        _start_warm(recommender, job, inputs.initial)
    aligned = {
        side: recommender.align(*vectors_of(handle), side)
        for side, handle in inputs.targets.items()
    }
    if job.kar is not None:
        recommender.feed(job.kar, aligned)
    if job.transfer is None:
        return recommender, ModelWrapper(recommender)
    if recommender.entry.takes_embeddings:
        recommender.know(job.transfer.alpha, aligned)
        return recommender, ModelWrapper(recommender)
    knowledge = []
    for side, tap in job.taps.items():
        entrance = probe(job.model, job.hyperparameters, tap, side)
        assert entrance is not None
        assert entrance.tap is not None
        assert entrance.width is not None
        knowledge.append(Knowledge(side, entrance.tap, entrance.width, aligned[side]))
    return recommender, ModelWrapper(recommender, job.transfer, knowledge, job.seed)


def starting_point(job: Job, weights: Handle, inputs: Inputs) -> Handle:
    """What another training can start from: weights, and the ids that their rows stand for.

    Args:
        job: of the training that made the weights.
        weights: of that training.
        inputs: of that training; ids of rows follow from them.
    """
    from safetensors.torch import load_file, save

    from models.recommenders.recommender import Recommender
    from models.training.warm_start import rows_of

    log = log_of(inputs.train, job.like_from)
    built = Recommender(job.model, job.hyperparameters, log, universe_of(inputs), seed=job.seed)
    tensors = load_file(weights.verify())
    content = save(tensors, {"rows": json.dumps(rows_of(built))})
    return write_bytes("initial", ".safetensors", content, rows=len(tensors))


def _start_warm(recommender: "Recommender", job: Job, initial: Handle) -> None:
    from safetensors import safe_open

    from models.training.warm_start import start_from

    if job.kar is not None:
        raise BadInput("initial: the arm kar has no warm start, leave it empty")
    with safe_open(initial.verify(), "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rows = json.loads((file.metadata() or {}).get("rows", "null"))
    if rows is None:
        raise BadInput(
            f"initial: {initial.file} does not say whose its rows are; make it by "
            "tasks.training.worker.starting_point"
        )
    start_from(recommender, weights, rows)
