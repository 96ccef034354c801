"""Sweeps: the metric over alpha, layer, alignment and reduction where they vary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from models.config import ARMS, BASELINE
from models.report.charts.theme import Figure, layout, line, plain, title

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
    over seeds, its whiskers standard deviations. The baseline is a level line. The y axis is
    called `label`.
    """
    found = []
    for model in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == model]
        baseline = [run["value"] for run in own if run["arm"] == BASELINE]
        for factor, name in FACTORS.items():
            lines = {key: line for key, line in _lines(own, factor).items() if len(line) > 1}
            if lines:
                found.append(Sweep(model, name, _figure(lines, baseline, factor, label)))
    return found


def _lines(runs: Sequence[RunRow], factor: str) -> dict[tuple[str, ...], _Line]:
    """Per arm and values of the other factors: values by the factor's value."""
    lines: dict[tuple[str, ...], _Line] = {}
    for run in runs:
        if run[factor] is not None:
            others = (
                f"{name} {run[key]}" for key, name in FACTORS.items() if key != factor and run[key]
            )
            values = lines.setdefault((run["arm"], *others), {})
            values.setdefault(run[factor], []).append(run["value"])
    return lines


def _figure(
    lines: Mapping[tuple[str, ...], _Line], baseline: Sequence[float], factor: str, label: str
) -> Figure:
    frame = layout(280)
    kind = "linear" if factor == "alpha" else "category"
    frame["xaxis"] |= {"title": title(FACTORS[factor]), "type": kind}
    frame["yaxis"] |= {"title": title(label)}
    if baseline:
        level = fmean(baseline)
        dashed = {"color": ARMS[BASELINE].colour, "width": 1.5, "dash": "dash"}
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
        frame["shapes"] = [{**across, "y0": level, "y1": level, "line": dashed}]
        above = {"xanchor": "right", "yanchor": "bottom", "showarrow": False}
        frame["annotations"] = [{"text": BASELINE, "xref": "paper", "x": 1, "y": level, **above}]
    data = [_trace(key, dict(sorted(values.items()))) for key, values in lines.items()]
    return {"data": data, "layout": frame}


def _trace(key: tuple[str, ...], values: _Line) -> dict[str, Any]:
    name = plain(", ".join(key))
    spread = [stdev(seeds) if len(seeds) > 1 else 0 for seeds in values.values()]
    return line(
        key[0],
        name,
        mode="lines+markers",
        x=[plain(x) if isinstance(x, str) else x for x in values],
        y=[fmean(seeds) for seeds in values.values()],
        customdata=[len(seeds) for seeds in values.values()],
        error_y={"type": "data", "array": spread, "thickness": 1.2, "width": 4},
        marker={"size": 7},
        hovertemplate=f"{name}: %{{x}}, %{{y:.4f}} (%{{customdata}} runs)<extra></extra>",
    )
