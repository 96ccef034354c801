"""The report's charts as plain Plotly data, from comparisons and from the course of trainings.

Colours are mid-tones that hold on a light and on a dark page; text and grid are left to the
page's own style sheet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.config import Job
from models.schemas import Epoch

Figure = dict[str, Any]

COLOURS = {
    "baseline": "#8c97a6",
    "transfer": "#3a86c8",
    "shuffled": "#c9803c",
    "noise": "#9472c8",
    "history-svd": "#3f9d7d",
    "genre-histogram": "#bd6490",
    "kar": "#8c6d31",
}
_TRANSPARENT = "rgba(0,0,0,0)"
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


def bars(comparisons: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """One group of bars per model, one bar per arm; whiskers are standard deviations over seeds.

    Args:
        comparisons: rows of one metric, with the keys of view `comparison`.
        label: the metric's name on the axis.
    """
    heights: dict[str, dict[str, tuple[float, float | None]]] = {}
    for row in comparisons:
        models = heights.setdefault("baseline", {})
        models[row["model"]] = (row["baseline_mean"], row["baseline_sd"])
    for row in comparisons:
        models = heights.setdefault(row["arm"], {})
        models[row["model"]] = (row["arm_mean"], row["arm_sd"])
    data = [
        {
            "type": "bar",
            "name": arm,
            "x": list(models),
            "y": [mean for mean, _ in models.values()],
            "error_y": {
                "type": "data",
                "array": [sd for _, sd in models.values()],
                "visible": any(sd is not None for _, sd in models.values()),
                "thickness": 1.2,
                "width": 4,
            },
            "marker": {"color": COLOURS[arm]},
            "hovertemplate": f"%{{x}}, {arm}: %{{y:.4f}}<extra></extra>",
        }
        for arm, models in heights.items()
    ]
    layout = _layout(320) | {"barmode": "group", "bargap": 0.62, "bargroupgap": 0.1}
    layout["yaxis"] |= {"rangemode": "tozero", "title": _title(label)}
    return {"data": data, "layout": layout}


def learning_curves(courses: Sequence[Course]) -> dict[str, list[Panel]]:
    """Per model, validation score and both losses over epochs, one line per arm and seed.

    Phases in which knowledge is transferred are tinted; a dot marks the epoch whose weights
    were kept.
    """
    models: dict[str, list[Course]] = {}
    for course in courses:
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
    layout = _layout(230)
    last = max(epoch.epoch for course in courses for epoch in course.epochs)
    layout["xaxis"] |= {"title": _title("epoch"), "range": [-0.5, last + 0.5]}
    layout["shapes"] = _tinted_phase(courses)
    return {"data": data, "layout": layout}


def _line(course: Course, field: str) -> dict[str, Any]:
    job = course.job
    drawn = [epoch for epoch in course.epochs if getattr(epoch, field) is not None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{job.arm}, seed {job.seed}",
        "x": [epoch.epoch for epoch in drawn],
        "y": [getattr(epoch, field) for epoch in drawn],
        "customdata": [epoch.phase for epoch in drawn],
        "line": {"color": COLOURS[job.arm], "width": 1.6},
        "opacity": 0.85,
        "hovertemplate": f"{job.arm}, seed {job.seed}, epoch %{{x}} (%{{customdata}}): %{{y:.4f}}"
        "<extra></extra>",
    }


def _best(course: Course) -> dict[str, Any]:
    kept = next(epoch for epoch in course.epochs if epoch.epoch == course.best_epoch)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [kept.epoch],
        "y": [kept.valid_score],
        "marker": {"color": COLOURS[course.job.arm], "size": 8},
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


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 8, "font": {"size": 12}}


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 8, "b": 40},
        "paper_bgcolor": _TRANSPARENT,
        "plot_bgcolor": _TRANSPARENT,
        "showlegend": False,
        "hovermode": "closest",
        "font": {"family": "inherit", "size": 12},
        "xaxis": {"showgrid": False, "zeroline": False, "fixedrange": True},
        "yaxis": {"showgrid": True, "zeroline": False, "fixedrange": True, "automargin": True},
    }
