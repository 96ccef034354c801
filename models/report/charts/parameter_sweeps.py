"""Sweeps: what a run's alpha, layer, alignment and reduction are worth where they vary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from models.config import ARMS, BASELINE
from models.report.charts.theme import Figure, layout, plain, title

FACTORS = {"alpha": "α", "layer": "Layer", "alignment": "Alignment", "reduction": "Reduction"}

RunRow = Mapping[str, Any]
"""Columns of table `runs`, and `value`: the primary metric on test."""
_Line = dict[Any, list[float]]


@dataclass(frozen=True)
class Sweep:
    """One model's values over one factor."""

    model: str
    factor: str
    figure: Figure


def sweeps(runs: Sequence[RunRow], label: str) -> list[Sweep]:
    """One chart per model and factor of which an arm has several values.

    A line joins runs that differ in nothing but the factor and the seed: its points are means
    over seeds, its whiskers standard deviations. The baseline is a level line.

    Args:
        runs: rows of table `runs` with their `value`.
        label: the metric's name on the axis.
    """
    found = []
    for model in dict.fromkeys(run["model"] for run in runs):
        of_model = [run for run in runs if run["model"] == model]
        for factor in FACTORS:
            lines = {key: line for key, line in _lines(of_model, factor).items() if len(line) > 1}
            if lines:
                figure = _figure(lines, _baseline(of_model), factor, label)
                found.append(Sweep(model, FACTORS[factor], figure))
    return found


def _lines(runs: Sequence[RunRow], factor: str) -> dict[tuple[str, ...], _Line]:
    """Per arm and values of the other factors: values by the factor's value."""
    lines: dict[tuple[str, ...], _Line] = {}
    for run in runs:
        if run[factor] is None:
            continue
        others = (f"{FACTORS[of]} {run[of]}" for of in FACTORS if of != factor and run[of])
        line = lines.setdefault((run["arm"], *others), {})
        line.setdefault(run[factor], []).append(run["value"])
    return lines


def _baseline(runs: Sequence[RunRow]) -> float | None:
    values = [run["value"] for run in runs if run["arm"] == BASELINE]
    return fmean(values) if values else None


def _figure(
    lines: Mapping[tuple[str, ...], _Line], baseline: float | None, factor: str, label: str
) -> Figure:
    data = [_trace(key, dict(sorted(line.items()))) for key, line in lines.items()]
    frame = layout(280)
    numbers = factor == "alpha"
    frame["xaxis"] |= {"title": title(FACTORS[factor]), "type": "linear" if numbers else "category"}
    frame["yaxis"] |= {"title": title(label)}
    if baseline is not None:
        frame["shapes"] = [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": baseline,
                "y1": baseline,
                "line": {"color": ARMS[BASELINE].colour, "width": 1.5, "dash": "dash"},
            }
        ]
        frame["annotations"] = [
            {
                "text": BASELINE,
                "xref": "paper",
                "x": 1,
                "y": baseline,
                "xanchor": "right",
                "yanchor": "bottom",
                "showarrow": False,
            }
        ]
    return {"data": data, "layout": frame}


def _trace(key: tuple[str, ...], line: _Line) -> dict[str, Any]:
    arm = key[0]
    name = plain(", ".join(key))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "meta": {"arm": arm},
        "x": [plain(x) if isinstance(x, str) else x for x in line],
        "y": [fmean(values) for values in line.values()],
        "customdata": [len(values) for values in line.values()],
        "error_y": {
            "type": "data",
            "array": [stdev(values) if len(values) > 1 else 0 for values in line.values()],
            "thickness": 1.2,
            "width": 4,
        },
        "line": {"color": ARMS[arm].colour, "width": 1.6, "dash": ARMS[arm].dash},
        "marker": {"size": 7},
        "hovertemplate": f"{name}: %{{x}}, %{{y:.4f}} (%{{customdata}} runs)<extra></extra>",
    }
