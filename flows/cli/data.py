"""`llmkt data` and `llmkt init`: look at data before anything is trained. Nothing is paid here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.common import AsJson, Config, DataDir, Set, command, emit, plain_table

if TYPE_CHECKING:
    from tasks.inspection.dataset_check import Checked, Contents, Problem
    from tasks.inspection.starter_config import Started

app = typer.Typer(
    help="Inspect a data set before a training.",
    no_args_is_help=True,
)

_BAR = 30


@app.callback()
def data() -> None:
    """Inspect a data set before a training."""


@app.command()
def check(
    config: Config,
    overrides: Set = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Describe a data set and list its problems; exit with 2 if a run would stop."""
    with command(data_dir):
        from tasks.execution.progress import bars
        from tasks.inspection.dataset_check import check as look

        with bars(Console(stderr=True)):
            found = look(config, overrides or [])
        emit(found, as_json, _print_checked)
    if found.refused:
        raise typer.Exit(2)


def init(
    interactions: Annotated[
        Path, typer.Option("--from", help="Interactions: CSV, TSV, Parquet or JSON lines.")
    ],
    items: Annotated[Path | None, typer.Option(help="Items, in the same formats.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Pipeline file to write.")] = Path(
        "configs/mine.yaml"
    ),
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Write a pipeline file for your own data; show the evidence of every guess."""
    with command(data_dir):
        from tasks.inspection.starter_config import init as start

        started = start(interactions, items, output, force)
        emit(started, as_json, _print_started)


def _print_started(console: Console, started: "Started") -> None:
    table = plain_table("file", "setting", "guess", "because")
    for of in started.guesses:
        value = of.value.replace("\t", "\\t")
        table.add_row(*map(Text, (of.file, of.setting, value, of.evidence)))
    console.print(table)
    _print_checked(console, started.checked)
    for line in (
        f"Written: {started.path}",
        f"Next: llmkt data check {started.path}",
        f"      llmkt run {started.path}",
    ):
        console.print(Text(line), soft_wrap=True)


def _print_checked(console: Console, found: "Checked") -> None:
    console.rule(f"{found.dataset}, {found.format}")
    for role, file in found.files.items():
        size = f"{file.bytes:,} bytes, sha256 {file.sha256}"
        console.print(Text(f"{role}: {file.name}, {size}"), soft_wrap=True)
    if found.read:
        console.print(_contents(found.read, found.kept))
        _print_ratings(console, found.kept or found.read)
    _print_account(console, found)
    for problem in found.problems:
        console.print(_problem(problem), soft_wrap=True)
    if found.refused:
        console.print("A run would be refused.")
    elif found.problems:
        console.print("A run goes through; what is set aside is listed above.")
    else:
        console.print("No problems.")


def _contents(read: "Contents", kept: "Contents | None") -> Table:
    table = plain_table("")
    shown = [("readable", read)] + ([("kept", kept)] if kept else [])
    for name, _ in shown:
        table.add_column(name, justify="right")
    lines = {
        "interactions": [f"{of.interactions:,}" for _, of in shown],
        "users": [f"{of.users:,}" for _, of in shown],
        "items": [f"{of.items:,}" for _, of in shown],
        "density": [f"{of.density:.4%}" for _, of in shown],
        "first (UTC)": [of.first or "–" for _, of in shown],
        "last (UTC)": [of.last or "–" for _, of in shown],
        "repeated pairs": [f"{of.repeated:,}" for _, of in shown],
        "mean rating": [f"{of.ratings.mean:.3f}" if of.ratings else "–" for _, of in shown],
    }
    for side in ("user", "item"):
        spreads = [getattr(of, f"per_{side}") for _, of in shown]
        label = f"per {side}: min, 25 %, median, 75 %, max"
        lines[label] = [
            " ".join(f"{value:g}" for name, value in of.items() if name != "mean") or "–"
            for of in spreads
        ]
    for label, values in lines.items():
        table.add_row(label, *values)
    return table


def _print_ratings(console: Console, of: "Contents") -> None:
    if of.ratings is None:
        return
    most = max(count for _, count in of.ratings.values)
    table = plain_table("rating", "", "")
    for value, count in of.ratings.values:
        bar = "█" * max(1, round(_BAR * count / most))
        table.add_row(f"{value:g}{' …' if of.ratings.ranges else ''}", bar, f"{count:,}")
    console.print(table)


def _print_account(console: Console, found: "Checked") -> None:
    if found.ingestion is None:
        return
    console.print(f"{found.ingestion.read:,} rows read, {found.ingestion.kept:,} kept")
    for of in found.ingestion.dropped:
        console.print(Text(f"  {of.rows:,} rows dropped by {of.step}: {of.why}"), soft_wrap=True)
    for of in found.ingestion.items:
        console.print(Text(f"  {of.rows:,} items dropped by {of.step}: {of.why}"), soft_wrap=True)
    for note in found.ingestion.notes:
        console.print(Text(f"  {note}"), soft_wrap=True)


def _problem(problem: "Problem") -> Text:
    rows = ", ".join(map(str, problem.rows))
    more = f" and {problem.count - len(problem.rows)} more" if problem.rows else ""
    where = f"{problem.file}, row {rows}{more if problem.count > len(problem.rows) else ''}: "
    fix = f". {problem.fix}." if problem.fix else ""
    style = "red" if problem.refused else "yellow"
    return Text(f"{where if problem.file else ''}{problem.what}{fix}", style=style)
