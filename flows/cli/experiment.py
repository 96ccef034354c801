"""`llmkt experiment`: shows what a grid will take, then runs it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.common import AsJson, DataDir, Set, Verbose, plain_errors, settle, wide_console

if TYPE_CHECKING:
    from flows.experiment import ExperimentSummary
    from flows.grid.dry_run import Plan
    from tasks.config.experiment_file import Loaded

_MOST_SHOWN = 30


def experiment(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG", help="Experiment files (YAML), run one after another."),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of trainings at the same time, over all points."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; start nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without a question.")] = False,
    overrides: Set = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a grid of pipelines and compare the results; show plan, time and price first.

    A failed point is recorded, and the others continue. A rerun continues an interrupted run.
    """
    settle(data_dir, verbose)
    console = Console(stderr=True) if as_json else wide_console()
    with plain_errors(verbose):
        from tasks.storage.artifacts import require_writable

        require_writable()  # before Prefect tries to start a server there

        from flows.grid.dry_run import plan
        from tasks.config.experiment_file import load_experiment

        loaded = [load_experiment(config, overrides or []) for config in configs]
        _require_different_names(loaded)
        plans = [plan(of, workers) for of in loaded]
        for of_plan in plans:
            _print_plan(console, of_plan)
        if dry_run:
            if as_json:
                _print_json([of.model_dump_json() for of in plans])
            return
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm("Start?", abort=True)
        summaries = [_run(of, overrides or [], workers) for of in loaded]
        if as_json:
            _print_json([of.model_dump_json() for of in summaries])
        else:
            for summary in summaries:
                _print_summary(console, summary)
    if not all(summary.ok for summary in summaries):
        raise typer.Exit(1)


def _require_different_names(loaded: "list[Loaded]") -> None:
    from models.errors import BadInput

    files: dict[str, Path] = {}
    for of in loaded:
        other = files.setdefault(of.name, of.file)
        if other != of.file:
            raise BadInput(
                f"{other} and {of.file} are both called {of.name}, so that the second would "
                "replace the first one's results; rename one"
            )


def _run(loaded: "Loaded", overrides: list[str], workers: int | None) -> "ExperimentSummary":
    from flows.experiment import experiment as flow
    from tasks.execution.progress import bars

    with bars(Console(stderr=True)):
        return flow(loaded.file, overrides, workers)


def _print_json(texts: list[str]) -> None:
    """One experiment's object as it is; several as a list."""
    objects = [json.loads(text) for text in texts]
    typer.echo(json.dumps(objects[0] if len(objects) == 1 else {"experiments": objects}))


def _print_plan(console: Console, plan: "Plan") -> None:
    table = Table("point", "trainings", "cached", box=None, pad_edge=False)
    for point in plan.points[:_MOST_SHOWN]:
        table.add_row(Text(point.point), str(point.trainings), str(point.cached))
    console.print(Text(plan.experiment, style="bold"))
    console.print(table)
    if len(plan.points) > _MOST_SHOWN:
        console.print(f"… and {len(plan.points) - _MOST_SHOWN} more points")
    for line in _lines(plan):
        console.print(Text(line), soft_wrap=True)


def _lines(plan: "Plan") -> list[str]:
    sizes = [
        _count(len(plan.points), "point"),
        _count(len(plan.models), "model"),
        _count(len(plan.arms), "arm"),
        _count(len(plan.seeds), "seed"),
    ]
    excluded = f"; {len(plan.excluded)} excluded" if plan.excluded else ""
    lines = [
        f"{' × '.join(sizes)}{excluded}",
        f"{plan.trainings} trainings, {plan.different} of them different, {plan.cached} of these "
        "cached",
    ]
    if plan.trials:
        lines.append(f"{plan.trials} trials of searches before, {plan.trials_cached} cached")
    return [*lines, _time(plan), _money(plan)]


def _time(plan: "Plan") -> str:
    time = plan.time
    if not time.trainings:
        return "Time: nothing left to train"
    minutes = time.seconds / plan.workers / 60
    took = "less than a minute" if minutes < 1 else f"about {_minutes(minutes)}"
    source = {
        0: "by past runs",
        time.trainings: "a guess: no past run is like these",
    }.get(time.guessed, f"by past runs, {time.guessed} of {time.trainings} guessed")
    workers = _count(plan.workers, "worker")
    return f"Time: {took} for {time.trainings} trainings with {workers} ({source})"


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _money(plan: "Plan") -> str:
    if not plan.money.questions:
        return "Money: nothing to ask an LLM"
    price = "at a price that is not known" if plan.money.usd is None else f"${plan.money.usd:.2f}"
    return f"Money: {plan.money.questions} questions to an LLM, {price}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_summary(console: Console, summary: "ExperimentSummary") -> None:
    from tasks.report.report_task import reference_lines
    from tasks.results.queries import comparison_rows
    from tasks.results.tables import comparison_table

    table = Table("point", "state", "trained", "cached", "failed", box=None, pad_edge=False)
    for point in summary.points:
        counts = (str(n) for n in (point.ran, point.cached, point.failed))
        table.add_row(Text(point.point), point.state, *counts)
    console.print(table)
    for point in summary.points:
        if point.state == "failed":
            console.print(Text(f"{point.point} failed: {point.reason}", style="red"))
    console.print(
        f"{summary.ran} trained, {summary.cached} cached, {summary.failed} failed"
        + (f", {summary.trials} trials" if summary.trials else "")
    )
    if summary.comparison:
        console.print(comparison_table(comparison_rows(summary.experiment)))
        console.print(f"All metrics: llmkt compare {summary.experiment} --all", soft_wrap=True)
    for line in reference_lines(summary.references):
        console.print(line)
    if summary.report:
        console.print(f"Report: {summary.report}", soft_wrap=True)
