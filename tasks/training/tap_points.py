"""The tap point of every model of a pipeline."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.config import Pipeline, Side
from models.errors import BadInput
from models.recommenders.entry import TapPoint
from models.recommenders.registry import ELSEWHERE, entry, judged
from tasks.execution.cache_key import code_versions
from tasks.execution.devices import log_float32_models
from tasks.execution.stage import stage

TapPoints = dict[str, dict[Side, TapPoint]]
"""Per model and side where knowledge enters; no side where a model has a baseline alone."""


def kept_tap_points(pipeline: Pipeline, question: Sequence[Any]) -> TapPoints:
    """Find `tap_points`, kept for later runs, so that these need not wait seconds for torch.

    `question` is what decides them in a pipeline; so does code, as the registry has no version.
    """
    log_float32_models(pipeline)
    found: TapPoints = _taps.recall(pipeline, question, code_versions(), keep=True)
    return found


@stage("taps", version=1, ignore=("pipeline",))
def _taps(pipeline: Pipeline, question: Sequence[Any], code: dict[str, str]) -> TapPoints:  # noqa: ARG001
    return tap_points(pipeline)


def tap_points(pipeline: Pipeline) -> TapPoints:
    """Find where knowledge enters each model, by building the model on a toy data set.

    A computed model takes embeddings only if its own `transfer` is set, since it mostly stands
    beside the others as what they should beat.

    Raises:
        BadInput: for an unsupported model, an unknown hyper-parameter, a value of the wrong type
            or a tap that is not there or does not fire.
    """
    from models.recommenders.own_models import require_usable
    from models.recommenders.tap_probe import probe, toy

    _require_clicks(pipeline)
    found: TapPoints = {}
    for name, settings in pipeline.models.items():
        found[name] = {}
        if settings.rankings is not None:
            if judged(name) is not ELSEWHERE:
                raise BadInput(
                    f"models.{name}.rankings: {name} names a model that is trained here. Give the "
                    "rankings another name, such as theirs."
                )
            continue
        transfer = pipeline.transfer_of(name)
        if entry(name).own:
            require_usable(name, toy(name, settings.given))
            if all(arm.takes == "nothing" for arm in pipeline.training.arm_rows):
                continue
        for side in transfer.sides:
            given = name, settings.given, settings.tap_of(side), side
            asked = settings.transfer or entry(name).loader
            taken = bool(asked) and pipeline.takes_knowledge(name)
            starts = taken and transfer.method.before_training
            point = probe(*given, transfer.method.teaches, starts)
            if point is not None and taken:
                found[name][side] = _narrowed(point, transfer.columns, name)
    return found


def _narrowed(point: TapPoint, columns: int | None, model: str) -> TapPoint:
    """Its first columns only, as `transfer.columns` asks."""
    tap, width = point.tap, point.width
    if columns is None or tap is None or width is None:
        return point
    if columns > width:
        raise BadInput(
            f"transfer.columns is {columns}, but the tapped layer {tap.name} of {model} is {width} "
            "wide. Lower it, or leave it empty."
        )
    stop = (tap.start or 0) + columns
    return replace(point, tap=tap.model_copy(update={"stop": stop}), width=columns)


def _require_clicks(pipeline: Pipeline) -> None:
    """Refuse models that cannot do what is asked of them."""
    others = [name for name in pipeline.models if judged(name).family != "context-aware"]
    if pipeline.evaluation.like_from is not None and others:
        raise BadInput(
            f"models: {', '.join(others)} rank but predict no likes. With evaluation.like_from, "
            "keep context-aware models alone."
        )
    for arm in pipeline.training.arm_rows:
        if arm.models and not set(pipeline.models) & set(arm.models):
            raise BadInput(
                f"training.arms: {arm.name} exists for {', '.join(arm.models)}, and none of them "
                f"is in models. Add one of them, or remove the arm."
            )
        if arm.takes == "examples" and pipeline.evaluation.like_from is None:
            raise BadInput(
                f"training.arms: {arm.name} reads examples with their likes, and nothing says what "
                "is liked. Set evaluation.like_from, or remove the arm."
            )
