"""Stage *training*: one RecBole model, one arm, one seed; held-out test data never comes here."""

from prefect.runtime import flow_run
from pydantic import BaseModel

from models.config import Job, Model, Side, Tap
from models.errors import BadInput
from models.zoo import described
from tasks.caching import stage
from tasks.handoffs import Trained
from tasks.progress import track
from tasks.storage import Handle
from tasks.worker import Inputs, in_worker, train


def tapped(models: dict[str, Model]) -> dict[str, tuple[Tap, int] | None]:
    """Each model's tap and its width, found by building the model on a toy data set.

    None for a model that is computed rather than trained: it only has a baseline.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter, a value of the wrong type
            or a tap that is not there or does not fire.
    """
    from models.recommender import probe

    return {
        name: probe(name, settings.hyperparameters, settings.tap)
        for name, settings in models.items()
    }


class TapRow(BaseModel):
    """Something in a model that can be tapped; `mark` names the side whose tap it is."""

    mark: str
    kind: str
    name: str
    shape: str
    fires: int


class Inspected(BaseModel):
    """What can be tapped in a model, and what the chosen taps yield, by side, in words."""

    taps: list[TapRow]
    chosen: dict[str, str]


def inspected(model: str, settings: Model | None) -> Inspected:
    """Look into `model` on a toy data set, with the given hyper-parameters and taps.

    Raises:
        BadInput: for an unsupported model, a wrong hyper-parameter or tap.
    """
    from models.recommender import probe, sightings, toy

    settings = settings or Model()
    built = toy(model, settings.hyperparameters)
    if built.entry.loader is None:
        raise BadInput(f"{model} is computed, not trained by gradient: it has no layer to tap")
    chosen: dict[str, str] = {}
    marks: dict[tuple[str, str], list[str]] = {}
    sides: tuple[tuple[Side, Tap | None], ...] = (
        ("users", settings.tap or built.entry.tap),
        ("items", built.entry.item_tap),
    )
    for side, tap in sides:
        found = probe(model, settings.hyperparameters, tap, side) if tap else None
        if found is None:
            chosen[side] = "no default tap: the model has no vector of its own for each"
            continue
        chosen[side] = f"{described(found[0])}, {found[1]} wide"
        marks.setdefault((found[0].kind, found[0].name), []).append(side)
    return Inspected(
        taps=[
            TapRow(
                mark=", ".join(marks.get((seen.kind, seen.name), [])),
                kind=seen.kind,
                name=seen.name,
                shape=seen.shape,
                fires=seen.fires,
            )
            for seen in sightings(built)
            if seen.rows
        ],
        chosen=chosen,
    )


@stage("training", version=2)
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
