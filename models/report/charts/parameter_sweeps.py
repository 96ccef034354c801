"""Sweeps: the metric over alpha, layer, alignment, reduction; the gain over histories' length."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from models.config import ARMS, BASELINE
from models.report.charts.theme import Figure, layout, line, plain, title

FACTORS = {"alpha": "α", "layer": "Layer", "alignment": "Alignment", "reduction": "Reduction"}

_LENGTH = "Training interactions of a user"

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
    """One chart per model and factor of which an arm has several values, or of its gains.

    A line joins runs that differ in nothing but the factor and the seed: its points are means
    over seeds, its whiskers standard deviations. The baseline is a level line. The y axis is
    called `label`.
    """
    found = []
    for model in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == model]
        if gains := _gains(own):  # a line over another factor would join different lengths
            figure = _figure(gains, [0.0], _LENGTH, "category", f"gain in {label}")
            found.append(Sweep(model, _LENGTH, figure))
            continue
        baseline = [run["value"] for run in own if run["arm"] == BASELINE]
        for factor, name in FACTORS.items():
            lines = {key: line for key, line in _lines(own, factor).items() if len(line) > 1}
            if lines:
                kind = "linear" if factor == "alpha" else "category"
                found.append(Sweep(model, name, _figure(lines, baseline, name, kind, label)))
    return found


def _gains(runs: Sequence[RunRow]) -> dict[tuple[str, ...], _Line]:
    """Per arm and sources: gains over the baseline of equal split, length and seed, by length.

    Empty unless `split.train_limit` has several values.
    """

    def place(run: RunRow) -> str:
        return json.dumps([run["config"]["split"], run["seed"]])

    def length(run: RunRow) -> float:
        return run["config"]["split"].get("train_limit") or math.inf

    baseline = {place(run): run["value"] for run in runs if run["arm"] == BASELINE}
    lengths = sorted({length(run) for run in runs})
    if len(lengths) < 2:
        return {}
    names = {n: "all" if n == math.inf else str(n) for n in lengths}
    gains: dict[tuple[str, ...], _Line] = {}
    for run in sorted(runs, key=length):
        if run["arm"] != BASELINE and place(run) in baseline:
            sources = run["config"]["targets"]["sources"]
            by_length = gains.setdefault((run["arm"], *map(str, sources)), {})
            gain = run["value"] - baseline[place(run)]
            by_length.setdefault(names[length(run)], []).append(gain)
    return gains


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
    return {key: dict(sorted(line.items())) for key, line in lines.items()}


def _figure(
    lines: Mapping[tuple[str, ...], _Line],
    baseline: Sequence[float],
    name: str,
    kind: str,
    label: str,
) -> Figure:
    frame = layout(280)
    frame["xaxis"] |= {"title": title(name), "type": kind}
    frame["yaxis"] |= {"title": title(label)}
    if baseline:
        level = fmean(baseline)
        dashed = {"color": ARMS[BASELINE].colour, "width": 1.5, "dash": "dash"}
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
        frame["shapes"] = [{**across, "y0": level, "y1": level, "line": dashed}]
        above = {"xanchor": "right", "yanchor": "bottom", "showarrow": False}
        frame["annotations"] = [{"text": BASELINE, "xref": "paper", "x": 1, "y": level, **above}]
    data = [_trace(key, values) for key, values in lines.items()]
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
