"""The commands of `llmkt` about what earlier runs left: `compare`, `settings`, `sql`, `gc`."""

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.common import (
    AsJson,
    DataDir,
    command,
    emit,
    plain_table,
    print_lines,
    terminal,
    wide_console,
)
from models.errors import BadInput

if TYPE_CHECKING:
    from tasks.storage.garbage_collection import Swept


class Form(StrEnum):
    """How results are written."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


AsForm = Annotated[Form, typer.Option("--format", help="Output format.")]


def compare(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIRST [SECOND]]",
            help="One experiment, or two to compare the arms of the first with the same arms of "
            "the second, point by point.",
        ),
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="Experiment, instead of FIRST.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Opponent: baseline (default), another arm such as shuffled, a reference such as "
            "EASE, or all."
        ),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Compare within slices: history, popularity, profile.")
    ] = False,
    form: AsForm = Form.table,
    all_metrics: Annotated[
        bool, typer.Option("--all", help="Show every metric instead of the primary one.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the comparison of arms in finished runs."""
    with command(data_dir):
        from models.config import BASELINE
        from tasks.results.queries import comparison_rows, slice_rows
        from tasks.results.tables import comparison_table, comparison_text

        names = [*(experiments or []), *([experiment] if experiment else [])]
        if len(names) > 2 or (len(names) == 2 and (against or slices)):
            raise BadInput(
                "llmkt compare takes one experiment, with --against or --slices, or two without"
            )
        if slices and against not in (None, BASELINE):
            raise BadInput("slices are compared with the baseline only: leave --against out")
        if len(names) == 2:
            from tasks.results.cross_experiment import compare_experiments

            rows, notes = compare_experiments(*names)
            for note in notes:
                print_lines(terminal(stderr=True), f"Not compared: {note}.")
        elif slices:
            rows = slice_rows(*names)
        else:
            rows = comparison_rows(names[0] if names else None, against)
        if form is Form.table:
            wide_console().print(comparison_table(rows, all_metrics))
        else:
            typer.echo(comparison_text(rows, form.value))


def settings(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="One with a search.")],
    data_dir: DataDir = None,
) -> None:
    """Print what a search chose as `settings` of another experiment, such as one of more splits."""
    with command(data_dir):
        import yaml

        from tasks.results.queries import chosen_settings

        chosen = {"settings": chosen_settings(experiment)}
        typer.echo(yaml.safe_dump(chosen, sort_keys=False, width=100), nl=False)


def sql(
    statement: Annotated[
        str, typer.Argument(metavar="SQL", help="A query, such as 'FROM comparison'.")
    ],
    form: AsForm = Form.table,
    data_dir: DataDir = None,
) -> None:
    """Query the results database, read-only; docs/reference/database.md lists its tables."""
    with command(data_dir):
        from tasks.results.queries import query
        from tasks.results.tables import query_table, query_text

        columns, rows = query(statement)
        if form is Form.table:
            wide_console().print(query_table(columns, rows))
        else:
            typer.echo(query_text(columns, rows, form.value))


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files; remove nothing.")] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Keep results younger than this many days.")
    ] = 30.0,
    keep_count: Annotated[
        int, typer.Option(min=0, help="Keep this many newest results of each stage.")
    ] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove old results, and files that no kept or published result needs."""
    with command(data_dir):
        from tasks.storage.garbage_collection import sweep

        emit(sweep(keep_days, keep_count, dry_run), as_json, partial(_print_swept, dry_run))


def _print_swept(dry_run: bool, console: Console, swept: "Swept") -> None:
    table = plain_table("file", "bytes", "why")
    for removal in swept.removed:
        table.add_row(removal.path, f"{removal.bytes:,}", removal.why)
    if swept.removed:
        console.print(table)
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{len(swept.removed)} files, {swept.bytes:,} bytes {verb}", highlight=False)
