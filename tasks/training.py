"""Stage *training*: one RecBole model, one arm, one seed; held-out test data never comes here."""

from dataclasses import replace
from typing import TYPE_CHECKING

from prefect.runtime import flow_run
from pydantic import BaseModel

from models.config import KAR_MODELS, SIDES, Job, Model, Pipeline, Side
from models.errors import BadInput
from models.schemas import RATING
from models.zoo import described, entry
from tasks.caching import stage
from tasks.checkpoints import forget
from tasks.crew import in_worker
from tasks.devices import say_what_stays_float32
from tasks.handoffs import Interactions, Splits, Trained
from tasks.progress import track
from tasks.storage import Handle, read_parquet
from tasks.training_inputs import Inputs
from tasks.worker import predict, train

if TYPE_CHECKING:
    from models.probing import Entrance


Entrances = dict[str, dict[Side, "Entrance"]]
"""Per model and side where knowledge enters; no side where a model has a baseline alone."""


def entrances(pipeline: Pipeline) -> Entrances:
    """Where knowledge enters each model, found by building the model on a toy data set.

    A model that takes embeddings without a tap does so only if its own `transfer` is set, since
    it mostly stands beside the others as what they should beat.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter, a value of the wrong type
            or a tap that is not there or does not fire.
    """
    from models.probing import probe

    _require_clicks(pipeline)
    say_what_stays_float32(pipeline)
    found: Entrances = {}
    for name, settings in pipeline.models.items():
        found[name] = {}
        for side in pipeline.transfer_of(name).sides:
            entrance = probe(name, settings.hyperparameters, settings.tap_of(side), side)
            if entrance is not None and (entrance.tap or settings.transfer):
                found[name][side] = _narrowed(entrance, pipeline.transfer_of(name).columns, name)
    return found


def _narrowed(entrance: "Entrance", columns: int | None, model: str) -> "Entrance":
    """The entrance with its first columns only, as `transfer.columns` asks."""
    tap, width = entrance.tap, entrance.width
    if columns is None or tap is None or width is None:
        return entrance
    if columns > width:
        raise BadInput(
            f"transfer.columns is {columns}, but the tapped layer {tap.name} of {model} is {width} "
            "wide; lower it, or leave it empty"
        )
    stop = (tap.start or 0) + columns
    return replace(entrance, tap=tap.model_copy(update={"stop": stop}), width=columns)


def _require_clicks(pipeline: Pipeline) -> None:
    """Refuse models that cannot do what is asked of them."""
    others = [name for name in pipeline.models if entry(name).family != "context-aware"]
    if pipeline.evaluation.like_from is not None and others:
        raise BadInput(
            f"models: {', '.join(others)} rank but predict no likes; with evaluation.like_from, "
            "keep context-aware models alone"
        )
    if "kar" in pipeline.training.arms and not set(pipeline.models) & set(KAR_MODELS):
        raise BadInput(
            f"training.arms: kar exists for {', '.join(KAR_MODELS)}, and none of them is in models"
        )


def require_enough_items(pipeline: Pipeline, data: Interactions) -> None:
    """Refuse rankings that are longer than the catalogue.

    Raises:
        BadInput: naming the cut-off to remove.
    """
    longest = max(pipeline.evaluation.k)
    if longest > data.items.rows:
        raise BadInput(
            f"evaluation.k: {longest} is larger than the number of items, {data.items.rows}; "
            "remove it"
        )


def require_likes(pipeline: Pipeline, parts: Splits) -> None:
    """Refuse data whose ratings do not say what users like, where that is to be predicted.

    Raises:
        BadInput: see `models.clicks.require_likes`.
    """
    like_from = pipeline.evaluation.like_from
    if like_from is None:
        return
    from models import clicks

    for name in type(parts).model_fields:
        ratings = read_parquet(getattr(parts, name), [RATING])[RATING]
        clicks.require_likes(ratings, like_from, name)


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
    from models.probing import probe, sightings, toy

    settings = settings or Model()
    built = toy(model, settings.hyperparameters)
    if built.entry.loader is None:
        raise BadInput(f"{model} is computed, not trained by gradient: it has no layer to tap")
    chosen: dict[str, str] = {}
    marks: dict[tuple[str, str], list[str]] = {}
    for side in SIDES:
        tap = settings.tap_of(side) or built.entry.default_tap(side)
        found = probe(model, settings.hyperparameters, tap, side) if tap else None
        if found is None or found.tap is None:
            chosen[side] = "no default tap: the model has no vector of its own for each"
            continue
        chosen[side] = f"{described(found.tap)}, {found.width} wide"
        marks.setdefault((found.tap.kind, found.tap.name), []).append(side)
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


@stage("training", version=3, optional=("initial",), on_completion=[forget])
def training(
    job: Job,
    train_pairs: Handle,
    valid_pairs: Handle,
    users: Handle,
    items: Handle,
    targets: dict[Side, Handle],
    initial: Handle | None = None,
) -> Trained:
    """Train one model in a worker process; see `tasks.worker.train`.

    Args:
        job: what is trained.
        train_pairs: interactions to learn from.
        valid_pairs: interactions for early stopping.
        users: all users, for internal ids.
        items: all items, for internal ids and as candidates.
        targets: the profiles' targets by side; none for a baseline.
        initial: what to start from, made by `tasks.worker.starting_point`; None is a cold start.
    """
    key = training.key_of(locals())
    inputs = Inputs(train_pairs, valid_pairs, users, items, targets, initial)
    with track(f"{job.model} {job.arm} seed {job.seed}", job.budget.epochs) as tracker:
        return in_worker(train, job, inputs, tracker, flow_run.get_id(), key)


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
    """Let a trained model predict the likes of the test part, which its training never saw.

    Args:
        trained: the model.
        train_pairs: as in `training`, like the following.
        valid_pairs: interactions for early stopping.
        test_pairs: the pairs to predict.
        users: all users.
        items: all items.
        targets: the profiles' targets by side.
    """
    inputs = Inputs(train_pairs, valid_pairs, users, items, targets)
    made = in_worker(predict, trained.job, trained.weights, inputs, test_pairs)
    return trained.model_copy(update={"predictions": made})
