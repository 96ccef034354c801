"""Gains with their intervals as strips inside a table: a forest plot that sorts with its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_WIDTH = 100.0
_EDGE = 3.0
"""Kept free on both sides, so that a dot at the end is whole."""


@dataclass(frozen=True)
class Gain:
    """A relative gain and its interval, in percent of what the arm is held against."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Strip:
    """Where a gain stands on its scale, 0 to 100; beyond the scale an end is cut off."""

    zero: float
    low: float
    middle: float
    high: float
    cut_low: bool
    cut_high: bool


@dataclass(frozen=True)
class Scale:
    """The range that all strips of a table share, in percent; holds 0."""

    low: float
    high: float

    def place(self, gain: Gain) -> Strip:
        """Where a gain stands."""
        return Strip(
            self._at(0.0),
            self._at(gain.low),
            self._at(gain.middle),
            self._at(gain.high),
            gain.low < self.low,
            gain.high > self.high,
        )

    def _at(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_EDGE + share * (_WIDTH - 2 * _EDGE), 2)


def gain(row: Mapping[str, Any]) -> Gain | None:
    """A contrast's gain with its interval in percent; None where there is none.

    Args:
        row: keys as in view `contrasts_all`.
    """
    base = row["baseline_mean"]
    if not base or None in (row["gain_percent"], row["ci_low"], row["ci_high"]):
        return None
    return Gain(row["gain_percent"], 100 * row["ci_low"] / base, 100 * row["ci_high"] / base)


def scale(rows: Sequence[Mapping[str, Any]]) -> Scale | None:
    """A range that shows every gain whole, and of the intervals what most of them need.

    One interval from two lucky seeds may be twenty times as wide as all others; it is cut off
    rather than letting them shrink to dots.
    """
    gains = [found for found in map(gain, rows) if found]
    if not gains:
        return None
    reach = 2.5 * float(np.median([one.high - one.low for one in gains]))
    middles = [0.0, *(one.middle for one in gains)]
    low = max(min(0.0, *(one.low for one in gains)), min(middles) - reach)
    high = min(max(0.0, *(one.high for one in gains)), max(middles) + reach)
    return Scale(low, high) if high > low else Scale(low - 1.0, high + 1.0)
