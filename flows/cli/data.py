"""`llmkt data` and `llmkt init`: look at data before anything is trained. Nothing is paid here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.common import (
    AsJson,
    Config,
    DataDir,
    Set,
    command,
    emit,
    plain_table,
    print_lines,
    terminal,
)

if TYPE_CHECKING:
    from tasks.dataset.outputs import Ingestion
    from tasks.inspection.dataset_check import Checked, Contents, Problem
    from tasks.inspection.pickle_conversion import Converted
    from tasks.inspection.starter_config import Started

app = typer.Typer(
    help="Inspect a data set before a training.",
    no_args_is_help=True,
)

split = typer.Typer(help="Hand a split to other programs.", no_args_is_help=True)
split.callback()(lambda: None)  # else a group of one command is that command

_BAR = 30


@app.command()
def check(
    config: Config,
    overrides: Set = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Describe a data set and list its problems; exit with 2 if a run would stop."""
    with command(data_dir):
        from tasks.config.pipeline_file import load
        from tasks.execution.progress import bars
        from tasks.inspection.dataset_check import check as look

        with bars(terminal(stderr=True)):
            found = look(load(config, overrides or []))
        emit(found, as_json, _print_checked)
    if found.refused:
        raise typer.Exit(2)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="PICKLE", help="A pickle, or a folder of RLMRec's data.")
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The Parquet file, or the folder, to write.")
    ],
    items: Annotated[
        bool, typer.Option("--items", help="The file's rows are items, not users.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Convert a pickled matrix, array or mapping of texts to Parquet, or a data set of RLMRec's.

    Runs read no pickle. This command admits NumPy arrays and SciPy matrices, and no other class.
    configs/datasets/rlmrec-*.yaml read the converted folders of Yelp, Steam and Amazon Books.
    """
    with command(data_dir):
        from models.schemas import ITEM, USER
        from tasks.inspection.pickle_conversion import convert as make
        from tasks.inspection.pickle_conversion import convert_folder

        key = ITEM if items else USER
        whole = source.is_dir()
        for made in convert_folder(source, output) if whole else [make(source, output, key)]:
            emit(made, as_json, _print_converted)


def _print_converted(console: Console, made: "Converted") -> None:
    print_lines(console, f"{made.path}: {made.kind}, {made.rows:,} rows")


@split.command(name="export")
def export_split(
    config: Config,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go.")],
    overrides: Set = None,
    data_dir: DataDir = None,
) -> None:
    """Write the split as TSV, RecBole's atomic files, and the pickles that RLMRec reads."""
    with command(data_dir):
        from tasks.config.pipeline_file import load
        from tasks.inspection.split_export import export

        print_lines(terminal(), *map(str, export(load(config, overrides or []), folder)))


def init(
    interactions: Annotated[
        Path, typer.Option("--from", help="Interactions: CSV, TSV, Parquet, JSON lines.")
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
    if started.refused:
        raise typer.Exit(2)


def _print_started(console: Console, started: "Started") -> None:
    table = plain_table("file", "setting", "guess", "because")
    for guess in started.guesses:
        value = guess.value.replace("\t", "\\t")
        table.add_row(*map(Text, (guess.file, guess.setting, value, guess.evidence)))
    console.print(table)
    _print_checked(console, started.checked)
    print_lines(
        console,
        f"Written: {started.path}",
        *(f"Unsure, a comment there: {text}" for text in started.unsure),
        f"Next: llmkt data check {started.path}",
        *([] if started.refused else [f"      llmkt run {started.path}"]),
    )


def _print_checked(console: Console, found: "Checked") -> None:
    console.rule(f"{found.dataset}, {found.format}")
    for role, file in found.files.items():
        size = f"{file.bytes:,} bytes, sha256 {file.sha256}"
        print_lines(console, f"{role}: {file.name}, {size}")
    if found.read:
        console.print(_contents(found.read, found.kept))
        _print_ratings(console, found.kept or found.read)
    if found.ingestion:
        _print_ingestion(console, found.ingestion)
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
    shown = {"readable": read} | ({"kept": kept} if kept else {})
    for name in shown:
        table.add_column(name, justify="right")
    columns = [_values(contents) for contents in shown.values()]
    for label in columns[0]:
        table.add_row(label, *(values[label] for values in columns))
    return table


def _values(contents: "Contents") -> dict[str, str]:
    values = {
        "interactions": f"{contents.interactions:,}",
        "users": f"{contents.users:,}",
        "items": f"{contents.items:,}",
        "density": f"{contents.density:.4%}",
        "first (UTC)": contents.first or "–",
        "last (UTC)": contents.last or "–",
        "repeated pairs": f"{contents.repeated:,}",
        "mean rating": f"{contents.ratings.mean:.3f}" if contents.ratings else "–",
    }
    for side, spread in (("user", contents.per_user), ("item", contents.per_item)):
        numbers = [f"{value:g}" for name, value in spread.items() if name != "mean"]
        values[f"per {side}: min, 25 %, median, 75 %, max"] = " ".join(numbers) or "–"
    return values


def _print_ratings(console: Console, contents: "Contents") -> None:
    ratings = contents.ratings
    if ratings is None:
        return
    most = max(count for _, count in ratings.values)
    table = plain_table("rating", "", "")
    for value, count in ratings.values:
        bar = "█" * max(1, round(_BAR * count / most))
        table.add_row(f"{value:g}{' …' if ratings.ranges else ''}", bar, f"{count:,}")
    console.print(table)


def _print_ingestion(console: Console, ingestion: "Ingestion") -> None:
    dropped = {"rows": ingestion.dropped, "items": ingestion.items}
    print_lines(
        console,
        f"{ingestion.read:,} rows read, {ingestion.kept:,} kept",
        *(
            f"  {step.rows:,} {noun} dropped by {step.step}: {step.why}"
            for noun, steps in dropped.items()
            for step in steps
        ),
        *(f"  {note}" for note in ingestion.notes),
    )


def _problem(problem: "Problem") -> Text:
    rows = ", ".join(map(str, problem.rows))
    more = f" and {problem.count - len(problem.rows)} more" if problem.rows else ""
    where = f"{problem.file}, row {rows}{more if problem.count > len(problem.rows) else ''}: "
    fix = f". {problem.fix}." if problem.fix else ""
    style = "red" if problem.refused else "yellow"
    return Text(f"{where if problem.file else ''}{problem.what}{fix}", style=style)
