"""Results as text: tables for a terminal, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from models.config import BASELINE
from models.report import wording

_STYLES = {"better": "bold green", "worse": "bold red", "same": "", "incomparable": "yellow"}
_TEXTS = {"experiment", "point", "model", "arm", "against", "slice", "metric", "verdict"}
_CROWDED = 10
"""Columns of a comparison with the baseline, of one experiment without points."""
_SHORT = {"model", "arm", "metric"}
"""Texts that points, slices and verdicts make room for."""


def comparison_table(rows: Sequence[wording.Row], all_metrics: bool = False) -> Table:
    """Comparisons for a terminal.

    Args:
        rows: of view `comparison`, `contrasts_all` or `slice_comparison`.
        all_metrics: every metric, not the primary one alone.
    """
    if not all_metrics:
        rows = [row for row in rows if row["is_primary"]] or rows
    experiments = list(dict.fromkeys(row.get("experiment") for row in rows))
    table = Table(
        title=str(experiments[0]) if experiments[0] and len(experiments) == 1 else None,
        caption="\n".join(wording.notes(rows)) or None,
        caption_justify="left",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    cells = _readable(rows)
    columns = ["experiment"] * (len(experiments) > 1) + list(cells[0])
    for column in columns:
        is_text = column in _TEXTS
        table.add_column(
            column,
            justify="left" if is_text else "right",
            no_wrap=not is_text or (column in _SHORT and len(columns) > _CROWDED),
            overflow="fold",
        )
    for row, of_row in zip(rows, cells, strict=True):
        verdict = Text(of_row["verdict"], _STYLES[wording.kind(row["verdict"])])
        plain = [Text(of_row.get(column, str(row.get(column)))) for column in columns[:-1]]
        table.add_row(*plain, verdict)
    return table


def comparison_text(rows: Sequence[wording.Row], form: str) -> str:
    """Comparisons as `json`, `csv` (both in full precision) or `md`."""
    if form != "md":
        return query_text(list(rows[0]), [list(row.values()) for row in rows], form)
    readable = [
        {"experiment": row["experiment"], **cells}
        for row, cells in zip(rows, _readable(rows), strict=True)
    ]
    table = _markdown(list(readable[0]), [list(cells.values()) for cells in readable])
    return "\n\n".join([table, *wording.notes(rows)])


def _readable(rows: Sequence[wording.Row]) -> list[dict[str, str]]:
    mixed = any(row.get("against", BASELINE) != BASELINE for row in rows)
    points = any(row.get("point") for row in rows)
    return [wording.readable(row, mixed, points) for row in rows]


def query_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """What a statement selected, for a terminal."""
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        numbers = all(isinstance(row[place], int | float | None) for row in rows)
        table.add_column(Text(column), justify="right" if rows and numbers else "left")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row))
    return table


def query_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str) -> str:
    """What a statement selected as `json`, `csv` or `md`, in full precision."""
    if form == "json":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        return json.dumps(objects, ensure_ascii=False, default=str)
    if form == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([columns, *rows])
        return stream.getvalue().removesuffix("\n")
    return _markdown(columns, [[_plain(value) for value in row] for row in rows])


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
