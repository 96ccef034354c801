"""Learning curves: validation score and both losses over epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.config import ARMS, Job
from models.report.charts.theme import Figure, layout, line, title
from models.schemas import Epoch

_PHASE_TINT = "rgba(58,134,200,0.10)"
_PANELS = {
    "valid_score": "Validation score",
    "model_loss": "Model loss",
    "transfer_loss": "Transfer loss",
}


@dataclass(frozen=True)
class Course:
    """One training as the report draws it."""

    job: Job
    epochs: Sequence[Epoch]
    best_epoch: int


def learning_curves(courses: Sequence[Course]) -> dict[str, dict[str, Figure]]:
    """Per model and title, validation score and both losses, one line per arm and seed.

    Phases in which knowledge is transferred are tinted; a dot marks the epoch whose weights
    were kept. Computed models, such as EASE, have no course.
    """
    models: dict[str, list[Course]] = {}
    for course in courses:
        if len(course.epochs) > 1:
            models.setdefault(course.job.model, []).append(course)
    return {
        model: {
            name: _panel(group, field)
            for field, name in _PANELS.items()
            if any(getattr(epoch, field) is not None for c in group for epoch in c.epochs)
        }
        for model, group in models.items()
    }


def _panel(courses: Sequence[Course], field: str) -> Figure:
    data = []
    for course in courses:
        data.append(_curve(course, field))
        if field == "valid_score":
            data.append(_best(course))
    frame = layout(230)
    last = max(epoch.epoch for course in courses for epoch in course.epochs)
    frame["xaxis"] |= {"title": title("epoch"), "range": [-0.5, last + 0.5]}
    frame["shapes"] = _tinted_phase(courses)
    return {"data": data, "layout": frame}


def _curve(course: Course, field: str) -> dict[str, Any]:
    name = f"{course.job.arm}, seed {course.job.seed}"
    drawn = [epoch for epoch in course.epochs if getattr(epoch, field) is not None]
    return line(
        course.job.arm,
        name,
        x=[epoch.epoch for epoch in drawn],
        y=[getattr(epoch, field) for epoch in drawn],
        customdata=[epoch.phase for epoch in drawn],
        opacity=0.85,
        hovertemplate=f"{name}, epoch %{{x}} (%{{customdata}}): %{{y:.4f}}<extra></extra>",
    )


def _best(course: Course) -> dict[str, Any]:
    kept = next(epoch for epoch in course.epochs if epoch.epoch == course.best_epoch)
    name = f"{course.job.arm}, seed {course.job.seed}"
    return {
        "type": "scatter",
        "mode": "markers",
        "meta": {"arm": course.job.arm},
        "x": [kept.epoch],
        "y": [kept.valid_score],
        "marker": {"color": ARMS[course.job.arm].colour, "size": 8},
        "hovertemplate": f"{name}: best epoch %{{x}}, %{{y:.4f}}<extra></extra>",
    }


def _tinted_phase(courses: Sequence[Course]) -> list[dict[str, Any]]:
    """A background from the first to the last epoch of knowledge transfer, over all seeds."""
    every = [epoch for course in courses for epoch in course.epochs]
    transferring = [epoch.epoch for epoch in every if epoch.transfer_loss is not None]
    if not transferring:
        return []
    style = {"type": "rect", "fillcolor": _PHASE_TINT, "line": {"width": 0}, "layer": "below"}
    across = {"xref": "x", "x0": min(transferring) - 0.5, "x1": max(transferring) + 0.5}
    return [{**style, **across, "yref": "paper", "y0": 0, "y1": 1}]
