"""Stage *training*: one RecBole model, one arm, one seed; held-out test data never comes here."""

from prefect.runtime import flow_run

from models.config import Job, Model, Tap
from tasks.caching import stage
from tasks.handoffs import Trained
from tasks.progress import track
from tasks.storage import Handle
from tasks.worker import Inputs, in_worker, train


def tapped(models: dict[str, Model]) -> dict[str, tuple[Tap, int]]:
    """Each model's tap and its width, found by building the model on a toy data set.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter, a value of the wrong type
            or a tap that is not there or does not fire.
    """
    from models.recommender import probe

    return {
        name: probe(name, settings.hyperparameters, settings.tap)
        for name, settings in models.items()
    }


@stage("training", version=1)
def training(
    job: Job,
    train_pairs: Handle,
    valid_pairs: Handle,
    users: Handle,
    items: Handle,
    targets: Handle | None,
) -> Trained:
    """Train one model in a worker process; see `tasks.worker.train`.

    Args:
        job: what is trained.
        train_pairs: interactions to learn from.
        valid_pairs: interactions for early stopping.
        users: all users, for internal ids.
        items: all items, for internal ids and as candidates.
        targets: the profiles' targets; None for a baseline.
    """
    inputs = Inputs(train_pairs, valid_pairs, users, items, targets)
    with track(f"{job.model} {job.arm} seed {job.seed}", job.budget.epochs) as tracker:
        return in_worker(train, job, inputs, tracker, flow_run.get_id())
