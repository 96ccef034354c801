"""What all charts share: colours, dashes, and a layout without a background."""

from html import escape
from typing import Any

Figure = dict[str, Any]

COLOURS = {
    "baseline": "#8c97a6",
    "transfer": "#3a86c8",
    "shuffled": "#c9803c",
    "shuffled-items": "#a8674f",
    "noise": "#9472c8",
    "history-svd": "#3f9d7d",
    "genre-histogram": "#bd6490",
    "kar": "#8c6d31",
}
DASHES = {
    "shuffled": "dash",
    "shuffled-items": "longdashdot",
    "noise": "dot",
    "history-svd": "dashdot",
    "genre-histogram": "longdash",
}
"""Lines that can be told apart without colour; all others are solid."""

_TRANSPARENT = "rgba(0,0,0,0)"
_HOVER = {
    "align": "left",
    "bgcolor": "#26303d",
    "bordercolor": "#8c97a6",
    "font": {"color": "#ffffff"},
}


def plain(text: str) -> str:
    """Text as Plotly shows it: it would take `<b>` and `&amp;` for markup."""
    return escape(text, quote=False)


def title(text: str) -> dict[str, Any]:
    """An axis title."""
    return {"text": text, "standoff": 8, "font": {"size": 12}}


def line(arm: str, name: str, mode: str = "lines", **settings: Any) -> dict[str, Any]:
    """A trace in the colour and dash of its arm, by which the page filters it."""
    style = {"color": COLOURS[arm], "width": 1.6, "dash": DASHES.get(arm, "solid")}
    trace = {"type": "scatter", "mode": mode, "name": name, "meta": {"arm": arm}, "line": style}
    return trace | settings


def layout(height: int) -> dict[str, Any]:
    """A bare frame of `height` pixels, as wide as the page allows."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 12, "t": 8, "b": 40},
        "paper_bgcolor": _TRANSPARENT,
        "plot_bgcolor": _TRANSPARENT,
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": _HOVER,
        "font": {"family": "inherit", "size": 12},
        "xaxis": {"showgrid": False, "zeroline": False, "fixedrange": True},
        "yaxis": {"showgrid": True, "zeroline": False, "fixedrange": True, "automargin": True},
    }
