"""The map of profiles as a chart."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from models.report.charts.theme import Figure, layout, plain

_STYLES = (
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
_OTHER_STYLE = ("#8c97a6", "circle")
_MOST_CHARACTERS = 220
_LINE = 64

Point = Mapping[str, Any]
"""One user or item: `id`, `x`, `y`, `genre` and `text`, the last two or None."""


def profile_map(points: Sequence[Point]) -> tuple[Figure, list[dict[str, Any]]]:
    """One trace per frequent genre, all others grey; hovering shows a profile's first words.

    Returns:
        The figure, and its key: `name`, `colour` and `count` of every genre.
    """
    counts = Counter(point["genre"] for point in points if point["genre"])
    frequent = [name for name, _ in counts.most_common(len(_STYLES))]
    styles = dict(zip(frequent, _STYLES, strict=False))
    data, key = [], []
    for genre in [*frequent, None]:
        own = [p for p in points if (p["genre"] if p["genre"] in styles else None) == genre]
        if not own:
            continue
        name = genre or "other"
        colour, symbol = styles[genre] if genre else _OTHER_STYLE
        key.append({"name": name, "colour": colour, "count": len(own)})
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(name),
                "x": [round(point["x"], 3) for point in own],
                "y": [round(point["y"], 3) for point in own],
                "text": [_hover(point) for point in own],
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
    return {"data": data[::-1], "layout": frame}, key  # frequent genres lie on top


def _hover(point: Point) -> str:
    head = f"<b>{plain(point['id'])}</b>"
    if point["genre"]:
        head += f", {plain(point['genre'])}"
    words = textwrap.shorten(point["text"] or "", _MOST_CHARACTERS, placeholder=" …")
    return "<br>".join([head, *map(plain, textwrap.wrap(words, _LINE))])
