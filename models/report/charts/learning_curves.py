"""Learning curves: validation score and both losses over epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.config import ARMS, Job
from models.report.charts.theme import Figure, layout, title
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


@dataclass(frozen=True)
class Panel:
    """One small chart of a model's learning curves."""

    title: str
    figure: Figure


def learning_curves(courses: Sequence[Course]) -> dict[str, list[Panel]]:
    """Per model, validation score and both losses over epochs, one line per arm and seed.

    Phases in which knowledge is transferred are tinted; a dot marks the epoch whose weights
    were kept. Computed models, such as EASE, have no course.
    """
    models: dict[str, list[Course]] = {}
    for course in courses:
        if len(course.epochs) > 1:
            models.setdefault(course.job.model, []).append(course)
    return {
        model: [
            Panel(title, _panel(group, field))
            for field, title in _PANELS.items()
            if any(getattr(epoch, field) is not None for c in group for epoch in c.epochs)
        ]
        for model, group in models.items()
    }


def _panel(courses: Sequence[Course], field: str) -> Figure:
    data = []
    for course in courses:
        data.append(_line(course, field))
        if field == "valid_score":
            data.append(_best(course))
    frame = layout(230)
    last = max(epoch.epoch for course in courses for epoch in course.epochs)
    frame["xaxis"] |= {"title": title("epoch"), "range": [-0.5, last + 0.5]}
    frame["shapes"] = _tinted_phase(courses)
    return {"data": data, "layout": frame}


def _line(course: Course, field: str) -> dict[str, Any]:
    job = course.job
    drawn = [epoch for epoch in course.epochs if getattr(epoch, field) is not None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{job.arm}, seed {job.seed}",
        "meta": {"arm": job.arm},
        "x": [epoch.epoch for epoch in drawn],
        "y": [getattr(epoch, field) for epoch in drawn],
        "customdata": [epoch.phase for epoch in drawn],
        "line": {"color": ARMS[job.arm].colour, "width": 1.6, "dash": ARMS[job.arm].dash},
        "opacity": 0.85,
        "hovertemplate": f"{job.arm}, seed {job.seed}, epoch %{{x}} (%{{customdata}}): %{{y:.4f}}"
        "<extra></extra>",
    }


def _best(course: Course) -> dict[str, Any]:
    kept = next(epoch for epoch in course.epochs if epoch.epoch == course.best_epoch)
    return {
        "type": "scatter",
        "mode": "markers",
        "meta": {"arm": course.job.arm},
        "x": [kept.epoch],
        "y": [kept.valid_score],
        "marker": {"color": ARMS[course.job.arm].colour, "size": 8},
        "hovertemplate": f"{course.job.arm}, seed {course.job.seed}: best epoch %{{x}}, %{{y:.4f}}"
        "<extra></extra>",
    }


def _tinted_phase(courses: Sequence[Course]) -> list[dict[str, Any]]:
    """A background from the first to the last epoch of knowledge transfer, over all seeds."""
    transferring = [
        epoch.epoch
        for course in courses
        for epoch in course.epochs
        if epoch.transfer_loss is not None
    ]
    if not transferring:
        return []
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": min(transferring) - 0.5,
            "x1": max(transferring) + 0.5,
            "y0": 0,
            "y1": 1,
            "fillcolor": _PHASE_TINT,
            "line": {"width": 0},
            "layer": "below",
        }
    ]
