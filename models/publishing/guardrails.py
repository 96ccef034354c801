"""Guardrails: what a challenger must keep beside the deciding metric. Pure arithmetic on rows.

A row is a night of `promotions`, by column. A value that was not measured breaches nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from models.config import Nightly
from models.publishing.promotion_gate import signed

Row = Mapping[str, Any]
_NIGHTS, _LEAST = 28, 5
"""How many earlier nights are history, and without how many there is none."""
_LEAST_DRIFT = 0.01


def breaches(rule: Nightly, row: Row, champion: Row | None, before: Sequence[Row]) -> Iterator[str]:
    """List the guardrails that tonight's challenger breaches, in words.

    `champion` is the night that published the champion, `before` are earlier judged nights, newest
    first.
    """
    if champion is not None:
        yield from _floors(rule, row, champion)
        yield from _losses(rule, row)
        yield from _unusual(rule, row, before)


def _floors(rule: Nightly, row: Row, champion: Row) -> Iterator[str]:
    """Values that may not fall far below the champion's."""
    limits = rule.guardrails
    share, was = _share(row), _share(champion)
    for name, value, reference, factor, less in (
        ("share of users served by the model", share, was, 1.0, limits.served_drop),
        ("coverage", row["coverage"], champion["coverage"], limits.coverage, 0.0),
        ("tail share", row["tail_share"], champion["tail_share"], limits.tail_share, 0.0),
        ("overlap with yesterday's lists", row["list_overlap"], limits.overlap, 1.0, 0.0),
    ):
        if value is None or reference is None or factor is None or less is None:
            continue
        least = factor * reference - less
        if value < least - 1e-9:
            yield f"{name} {value:.3f} is below {least:.3f}"


def _losses(rule: Nightly, row: Row) -> Iterator[str]:
    """Losses of cold users, and against the anchor, in the metric's unit."""
    anchor = rule.guardrails.anchor
    anchor = 2 * rule.tolerance if anchor is None else anchor
    if row["cold_ci_high"] is not None and row["cold_ci_high"] < -rule.tolerance:
        yield f"the coldest quarter of users loses {signed(row['cold_difference'])}"
    if row["anchor_ci_low"] is not None and row["anchor_ci_low"] < -anchor:
        yield (
            f"the interval of the difference to the anchor {row['anchor_version']}, "
            f"{signed(row['anchor_difference'])}, reaches below {signed(-anchor)}"
        )


def _unusual(rule: Nightly, row: Row, before: Sequence[Row]) -> Iterator[str]:
    """Drift and volume far from the median of the nights before."""
    for name, column, factor, least, floor in (
        ("profile drift", "profile_drift", rule.guardrails.drift, 0.0, _LEAST_DRIFT),
        ("new interactions", "new_interactions", rule.guardrails.volume, 1.0, 0.0),
    ):
        known = [night[column] for night in before if night["champion_version"]]
        known = [value for value in known if value is not None][:_NIGHTS]
        if factor is None or row[column] is None or len(known) < _LEAST:
            continue
        usual = median(known)
        if not least * usual / factor <= row[column] <= max(factor * usual, floor):
            yield f"{name}: {row[column]:g}, where {usual:g} is usual"


def _share(row: Row) -> float | None:
    if not row["users_known"] or row["users_by_model"] is None:
        return None
    return float(row["users_by_model"] / row["users_known"])
