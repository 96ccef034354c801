"""Results as text: tables for a terminal, Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from models.config import BASELINE
from models.plain_text import as_json, for_csv, for_markdown, for_terminal
from models.report import wording

_STYLES = {"better": "bold green", "worse": "bold red", "same": "", "incomparable": "yellow"}
_TEXTS = {"experiment", "point", "model", "arm", "against", "slice", "metric", "verdict"}
_CROWDED = 10
"""Columns of a comparison with the baseline, of one experiment without points."""
_SHORT = {"model", "arm", "metric"}
"""Texts that points, slices and verdicts make room for."""


def comparison_table(rows: Sequence[wording.Row], all_metrics: bool = False) -> Table:
    """Rows of `comparison`, `contrasts_all` or `slice_comparison` for a terminal."""
    if not all_metrics:
        rows = [row for row in rows if row["is_primary"]] or rows
    experiments = {row["experiment"] for row in rows}
    cells = _readable(rows, named=len(experiments) > 1)
    table = Table(
        title=str(experiments.pop()) if len(experiments) == 1 else None,
        caption="\n".join(wording.notes(rows)) or None,
        caption_justify="left",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in cells[0]:
        is_text = column in _TEXTS
        table.add_column(
            column,
            justify="left" if is_text else "right",
            no_wrap=not is_text or (column in _SHORT and len(cells[0]) > _CROWDED),
            overflow="fold",
        )
    for row, texts in zip(rows, cells, strict=True):
        style = _STYLES[wording.kind(row["verdict"])]
        table.add_row(*(Text(texts[key], style if key == "verdict" else "") for key in texts))
    return table


def comparison_text(rows: Sequence[wording.Row], form: str) -> str:
    """Comparisons as `json`, `csv` (both in full precision) or `md`."""
    if form != "md":
        return query_text(list(rows[0]), [list(row.values()) for row in rows], form)
    cells = _readable(rows, named=True)
    table = _markdown(list(cells[0]), [list(texts.values()) for texts in cells])
    return "\n\n".join([table, *map(for_terminal, wording.notes(rows))])


def _readable(rows: Sequence[wording.Row], named: bool) -> list[dict[str, str]]:
    """Cells by column; `named` with the experiment."""
    against = any(row["against"] != BASELINE for row in rows)
    point = any(row["point"] for row in rows)
    return [
        ({"experiment": row["experiment"]} if named else {})
        | wording.readable(row, show_against=against, show_point=point)
        for row in rows
    ]


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
        return as_json([dict(zip(columns, row, strict=True)) for row in rows])
    if form == "csv":
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([map(for_csv, row) for row in (columns, *rows)])
        return stream.getvalue().removesuffix("\n")
    return _markdown(columns, [[_plain(value) for value in row] for row in rows])


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(for_markdown, cells)) + " |" for cells in lines)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
