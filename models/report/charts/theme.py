"""What all charts share: colours, dashes, and a layout without a background."""

from html import escape
from typing import Any

from models.config import ARMS

Figure = dict[str, Any]

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
    style = {"color": ARMS[arm].colour, "width": 1.6, "dash": ARMS[arm].dash}
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
