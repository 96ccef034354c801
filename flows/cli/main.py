"""The `llmkt` command. Exit codes: 0 success, 1 failure, 2 input that the user can mend."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.cli import data as data_commands
from flows.cli import nightly as nightly_commands
from flows.cli import profiles as profiles_commands
from flows.cli import results as results_commands
from flows.cli.common import (
    AsJson,
    Config,
    DataDir,
    Set,
    Verbose,
    command,
    echo_json,
    emit,
    print_comparison,
    print_lines,
    stage_table,
    terminal,
    wide_console,
)
from flows.cli.experiment import experiment

if TYPE_CHECKING:
    from flows.steps.comparison import Summary
    from tasks.inspection.model_taps import Inspected

app = typer.Typer(
    help="Transfer LLM knowledge into collaborative filtering, and measure whether it helps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(nightly_commands.app)
app.add_typer(profiles_commands.app, name="profiles")
app.add_typer(data_commands.app, name="data")
app.add_typer(data_commands.split, name="split")
app.command()(data_commands.init)
app.command()(experiment)
app.command()(results_commands.compare)
app.command()(results_commands.settings)
app.command()(results_commands.sql)
app.command()(results_commands.gc)


def main() -> None:
    """Run the command line; the entry point of `llmkt`."""
    app(prog_name="llmkt")


@app.command()
def run(
    config: Config,
    overrides: Set = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a pipeline and compare its arms; cached stages are not repeated."""
    with command(data_dir, verbose, writes=True):
        from flows.knowledge_transfer import run as run_pipeline
        from tasks.execution.progress import bars

        with bars(terminal(stderr=True)):
            summary = run_pipeline(config, overrides or [])
        emit(summary, as_json, _print_summary)


@app.command()
def report(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="Default: the newest.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Print the path of an experiment's report."""
    with command(data_dir):
        from tasks.report.report_task import find_report

        path = find_report(experiment)
        typer.echo(path)
        if open_it:
            webbrowser.open(path.as_uri())


@app.command()
def paper(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A finished one.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("paper"),
    data_dir: DataDir = None,
) -> None:
    """Write LaTeX tables, figures as vector PDF, a paragraph on methods, and BibTeX."""
    with command(data_dir):
        from tasks.report.paper import write_paper

        print_lines(terminal(), *map(str, write_paper(experiment, folder)))


@app.command()
def bundle(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A finished one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip.")] = Path("bundle.zip"),
    texts: Annotated[bool, typer.Option("--texts", help="With the profiles' texts.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Pack all that a third party needs to check an experiment's numbers."""
    with command(data_dir):
        from tasks.report.bundle import pack

        gone = pack(experiment, output, texts)
        print_lines(terminal(), str(output), *(f"not in it, since it is gone: {n}" for n in gone))


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `bundle` wrote.")],
    as_json: AsJson = False,
) -> None:
    """Compute a bundle's numbers again; exit code 1 where something differs."""
    with command():
        from tasks.report.verification import verify as check

        _print_findings(list(check(bundle)), as_json)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List RecBole's models with their taps, or the reason why one is not supported."""
    from models.recommenders.registry import catalogue

    rows = catalogue()
    if as_json:
        echo_json(rows)
        return
    table = Table("model", "family", "default tap", "note")
    for row in rows:
        tap = row["tap"] or ("–" if row["supported"] else "not supported")
        table.add_row(row["model"], row["family"], tap, row["reason"])
    wide_console().print(table)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `llmkt models`.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Pipeline file with hyper-parameters and tap.")
    ] = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """List the layers of a model that can be tapped, with shapes on a toy data set."""
    with command():
        from tasks.config.pipeline_file import load
        from tasks.inspection.model_taps import inspected

        chosen = load(config, overrides or []).models.get(model) if config else None
        emit(inspected(model, chosen), as_json, _print_taps)


@app.command()
def check_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="FILE.py:Class or a name.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Pipeline file with hyper-parameters and tap.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try on toy data what a model must hold to; exit code 1 where something does not hold."""
    with command():
        from models.config import Model
        from models.training.model_contract import promises
        from tasks.config.pipeline_file import load

        chosen = load(config).models.get(model) if config else None
        found = list(promises(model, chosen or Model()))
    _print_findings(found, as_json)


def _print_findings(found: list[tuple[str, bool, str]], as_json: bool) -> None:
    """Print what holds and what does not; exit code 1 for the latter."""
    if as_json:
        echo_json([dict(zip(("promise", "holds", "fix"), row, strict=True)) for row in found])
    for promise, holds, fix in () if as_json else found:
        print_lines(terminal(), f"holds: {promise}" if holds else f"BROKEN: {promise}. {fix}")
    if not all(holds for _, holds, _ in found):
        raise typer.Exit(1)


def _print_taps(console: Console, found: "Inspected") -> None:
    table = Table("", "kind", "name", "yields in one step", "fires")
    for row in found.taps:
        table.add_row(row.mark, row.kind, row.name, row.shape, str(row.fires))
    console.print(table)
    print_lines(console, *(f"{side}: {text}" for side, text in found.chosen.items()))


def _print_summary(console: Console, summary: "Summary") -> None:
    console.print(stage_table(summary.stages))
    if all(record.state == "cached" for record in summary.stages):
        print_lines(console, "Every stage was cached.")
    print_comparison(console, summary)
