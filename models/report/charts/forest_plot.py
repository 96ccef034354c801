"""Gains with their intervals inside a table: a forest plot that sorts with its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.config import ARMS, BASELINE
from models.report.charts.theme import Figure, layout, plain, title

_MARGIN = 3.0
"""Kept free on both sides, so that a dot at the end is whole."""


@dataclass(frozen=True)
class Gain:
    """A relative gain and its interval, in percent of the baseline's mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """The range that all rows of a table share, in percent; holds 0."""

    low: float
    high: float

    def position(self, value: float) -> float:
        """Position of a value on the axis, 0 to 100; a value beyond it stands at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_MARGIN + share * (100.0 - 2 * _MARGIN), 2)


def gain(row: Mapping[str, Any]) -> Gain | None:
    """Relative gain of a row of view `contrasts_all`; None where there is none."""
    base = row["baseline_mean"]
    if not base or None in (row["gain_percent"], row["ci_low"], row["ci_high"]):
        return None
    return Gain(row["gain_percent"], 100 * row["ci_low"] / base, 100 * row["ci_high"] / base)


def forest(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw rows of view `contrasts_all` one under the other, in percent, in the arms' colours."""
    data = []
    for row in reversed(rows):
        found, point = gain(row), f" ({row['point']})" if row["point"] else ""
        other = "" if row["against"] == BASELINE else f" – {row['against']}"
        if found:
            spread = {"array": [found.high - found.mean], "arrayminus": [found.mean - found.low]}
            marks = {"mode": "markers", "marker": {"color": ARMS[row["arm"]].colour}}
            place = {"x": [found.mean], "y": [plain(f"{row['model']} {row['arm']}{other}{point}")]}
            data.append({"type": "scatter", **marks, **place, "error_x": spread})
    frame = layout(120 + 24 * len(data))
    frame["xaxis"] |= {"title": title("gain, %")}
    frame["shapes"] = [{"type": "line", "x0": 0, "x1": 0, "xref": "x", "yref": "paper"}]
    return {"data": data, "layout": frame}


def axis(rows: Sequence[Mapping[str, Any]]) -> Axis | None:
    """The range that shows every gain, and of the intervals as much as most of them need.

    One interval from two seeds that happen to agree little may be twenty times as wide as all
    others; it is cut off, so that the others do not shrink to dots.
    """
    gains = [found for found in map(gain, rows) if found]
    if not gains:
        return None
    reach = 2.5 * float(np.median([each.high - each.low for each in gains]))
    means = [0.0, *(each.mean for each in gains)]
    low = max(min(0.0, *(each.low for each in gains)), min(means) - reach)
    high = min(max(0.0, *(each.high for each in gains)), max(means) + reach)
    return Axis(low, high) if high > low else Axis(low - 1.0, high + 1.0)
