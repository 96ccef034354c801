"""Stage *training*: one RecBole model, one arm, one seed; held-out test data never comes here."""

from dataclasses import replace

from prefect.runtime import flow_run

from models.config import Job, Side
from models.recommenders.registry import entry
from tasks.execution.progress import run_logger, track
from tasks.execution.stage import stage
from tasks.execution.worker_pool import in_worker
from tasks.storage.artifacts import Handle
from tasks.training import worker
from tasks.training.checkpoint_files import forget
from tasks.training.model_tables import Inputs
from tasks.training.outputs import Trained
from tasks.training.worker import predict, train

_VANISHED = 0.99
"""Of an interaction, what the objective misses. Vectors of zero miss 1, useful ones 0.4 to 0.95."""


@stage(
    "training",
    version=7,
    ignore=("keep_weights",),
    optional=("initial",),
    on_completion=[forget],
)
def training(
    job: Job,
    train_pairs: Handle,
    valid_pairs: Handle,
    users: Handle,
    items: Handle,
    targets: dict[Side, Handle],
    initial: Handle | None = None,
    keep_weights: bool = True,
) -> Trained:
    """Train one model in a worker process; see `tasks.training.worker.train`.

    A baseline has no targets; `initial`, from `tasks.training.worker.starting_point`, warm-starts.
    A search's trials keep no weights: EASE has four bytes for each pair of items.
    """
    key = training.key_of(locals())
    inputs = Inputs(train_pairs, valid_pairs, users, items, targets, initial)
    with track(f"{job.model} {job.arm} seed {job.seed}", job.budget.epochs) as tracker:
        run_id = flow_run.get_id()
        trained = in_worker(train, job, inputs, tracker, run_id, key, keep_weights)
    if trained.valid_error is not None:
        run_logger().info(
            "Validated on %d of %d users: the score's standard error is %.4f.",
            job.budget.validation_users,
            users.rows,
            trained.valid_error,
        )
    swept = entry(job.model).loader == "sweeps"
    if keep_weights and swept and trained.epochs[-1].model_loss > _VANISHED:
        run_logger().warning(
            "%s learned hardly anything: its vectors shrank to zero, since their penalty grows "
            "with the catalogue (%d items). Set models.%s.hyperparameters.unobserved_weight to a "
            "tenth, then reg_weight, or search both.",
            job.model,
            items.rows,
            job.model,
        )
    return trained


@stage("refit", version=1, on_completion=[forget])
def refit(
    judged: Trained,
    train_pairs: Handle,
    interactions: Handle,
    users: Handle,
    items: Handle,
    targets: dict[Side, Handle],
) -> Trained:
    """Train a judged model on all interactions, see `tasks.training.worker.refit`: new weights."""
    key = refit.key_of(locals())
    inputs = Inputs(train_pairs, train_pairs, users, items, targets)
    with track(f"{judged.job.model} on everything", judged.best_epoch + 1) as tracker:
        whole = replace(inputs, train=interactions)
        weights = in_worker(worker.refit, judged, inputs, whole, tracker, key)
    return judged.model_copy(update={"weights": weights})


@stage("predictions", version=1)
def predictions(
    trained: Trained,
    train_pairs: Handle,
    valid_pairs: Handle,
    test_pairs: Handle,
    users: Handle,
    items: Handle,
    targets: dict[Side, Handle],
) -> Trained:
    """Let a trained model predict the likes of the test part, which its training never saw."""
    inputs = Inputs(train_pairs, valid_pairs, users, items, targets)
    made = in_worker(predict, trained.job, trained.kept_weights, inputs, test_pairs)
    return trained.model_copy(update={"predictions": made})
