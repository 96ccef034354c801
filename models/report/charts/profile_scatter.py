"""The map of profiles as a chart."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from models.report.charts.theme import Figure, layout, plain

_COLOURS = (
    ("#3a86c8", "circle"),
    ("#d1743a", "square"),
    ("#3f9d7d", "diamond"),
    ("#b9609c", "triangle-up"),
    ("#8b76cf", "cross"),
    ("#a8872b", "triangle-down"),
    ("#4aa3b5", "star"),
    ("#cc5f63", "hexagon"),
)
"""Colours and shapes, so that groups can be told apart without colour."""
_OTHER = ("#8c97a6", "circle")
_OTHERS = "other"
_WORDS = 220
_LINE = 64


@dataclass(frozen=True)
class Point:
    """One user or item of the map."""

    token: str
    x: float
    y: float
    group: str | None
    text: str | None


@dataclass(frozen=True)
class Mark:
    """One entry of the map's key."""

    name: str
    colour: str
    count: int


def profile_map(points: Sequence[Point]) -> tuple[Figure, list[Mark]]:
    """One trace per frequent group, the others grey; hovering shows a profile's first words."""
    counts = Counter(point.group for point in points if point.group)
    frequent = [name for name, _ in counts.most_common(len(_COLOURS))]
    looks = dict(zip(frequent, _COLOURS, strict=False))
    data, marks = [], []
    for group in [*frequent, None]:
        own = [p for p in points if (p.group if p.group in looks else None) == group]
        if not own:
            continue
        name = group or _OTHERS
        colour, symbol = looks[group] if group else _OTHER
        marks.append(Mark(name, colour, len(own)))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(name),
                "x": [round(p.x, 3) for p in own],
                "y": [round(p.y, 3) for p in own],
                "text": [_hover(p) for p in own],
                "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.8},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    frame = layout(520)
    frame["margin"] = {"l": 8, "r": 8, "t": 8, "b": 8}
    hidden = {"visible": False, "fixedrange": False}
    frame["xaxis"] |= hidden
    frame["yaxis"] |= {**hidden, "scaleanchor": "x"}
    frame["dragmode"] = "pan"
    return {"data": data[::-1], "layout": frame}, marks  # what is frequent lies on top


def _hover(point: Point) -> str:
    head = f"<b>{plain(point.token)}</b>"
    if point.group:
        head += f", {plain(point.group)}"
    if not point.text:
        return head
    words = textwrap.shorten(point.text, _WORDS, placeholder=" …")
    lines = textwrap.wrap(words, _LINE) or [""]
    return "<br>".join([head, *map(plain, lines)])
