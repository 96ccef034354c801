"""`llmkt experiment`: shows what a grid will take, then runs it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from flows.cli.common import (
    AsJson,
    DataDir,
    Set,
    Verbose,
    command,
    echo_json,
    plain_table,
    print_comparison,
    print_lines,
    terminal,
    wide_console,
)

if TYPE_CHECKING:
    from flows.experiment_grid import ExperimentSummary
    from flows.grid.dry_run import Plan
    from tasks.config.experiment_file import LoadedExperiment
    from tasks.inspection.power import Power

_MOST_SHOWN = 30


def experiment(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG", help="Experiment files (YAML)."),
    ],
    workers: Annotated[int | None, typer.Option(min=1, help="Trainings at the same time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without a question.")] = False,
    overrides: Set = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a grid of pipelines and compare the results; show plan, time and price first.

    A failed point is recorded, and the others continue. A rerun continues an interrupted run.
    """
    console = terminal(stderr=True) if as_json else wide_console()
    with command(data_dir, verbose, writes=True):
        from flows.experiment_grid import run as run_experiment
        from flows.grid.dry_run import plan
        from tasks.config.experiment_file import load_experiment
        from tasks.execution.progress import bars

        loaded = [load_experiment(config, overrides or []) for config in configs]
        _require_different_names(loaded)
        plans = [plan(each, workers) for each in loaded]
        for planned in plans:
            _print_plan(console, planned)
        if dry_run:
            if as_json:
                _print_json(plans)
            return
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm("Start?", abort=True)
        summaries = []
        for each in loaded:
            with bars(terminal(stderr=True)):
                summaries.append(run_experiment(each.file, overrides or [], workers))
        if as_json:
            _print_json(summaries)
        else:
            for summary in summaries:
                _print_summary(console, summary)
    if not all(summary.ok for summary in summaries):
        raise typer.Exit(1)


def _require_different_names(loaded: "list[LoadedExperiment]") -> None:
    from models.errors import BadInput

    files: dict[str, Path] = {}
    for each in loaded:
        other = files.setdefault(each.name, each.file)
        if other != each.file:
            raise BadInput(
                f"{other} and {each.file} are both called {each.name}, so that the second would "
                "replace the first one's results. Rename one"
            )


def _print_json(results: Sequence[BaseModel]) -> None:
    """Print one experiment's object as it is, several as a list."""
    objects = [result.model_dump(mode="json") for result in results]
    echo_json(objects[0] if len(objects) == 1 else {"experiments": objects})


def _print_plan(console: Console, plan: "Plan") -> None:
    table = plain_table("point", "trainings", "cached")
    for point in plan.points[:_MOST_SHOWN]:
        table.add_row(Text(point.point), str(point.trainings), str(point.cached))
    console.print(Text(plan.experiment, style="bold"))
    console.print(table)
    if len(plan.points) > _MOST_SHOWN:
        console.print(f"… and {len(plan.points) - _MOST_SHOWN} more points")
    print_lines(console, *_lines(plan))


def _lines(plan: "Plan") -> list[str]:
    counts = [len(plan.points), len(plan.models), len(plan.arms), len(plan.seeds)]
    sizes = map(_count, counts, ["point", "model", "arm", "seed"])
    excluded = f"; {len(plan.excluded)} excluded" if plan.excluded else ""
    lines = [
        f"{' × '.join(sizes)}{excluded}",
        f"{plan.trainings} trainings, {plan.different} of them different, {plan.cached} of these "
        "cached",
    ]
    if plan.trials:
        lines.append(f"{plan.trials} trials of searches before, {plan.trials_cached} cached")
    return [*lines, _time(plan), _money(plan), *map(_power, plan.power)]


def _power(power: "Power") -> str:
    start = f"Power of {power.model} {power.arm} with {_count(power.replicates, 'replicate')}: "
    if power.pilot is None or power.needed is None:
        return (
            start
            + "unknown, since no past run has two seeds of both arms. Run a pilot of three seeds."
        )
    found = power.detectable_percent
    gain = "one training decides nothing" if found is None else f"a gain of {found:.1f} % (80 %)"
    needed = ", ".join(f"{n or 'over 100'} for {size} %" for size, n in power.needed.items())
    splits = "one split" if power.pilot_splits == 1 else f"{power.pilot_splits} splits"
    return f"{start}{gain}; needed: {needed} (variances of {power.pilot}, {splits})"


def _time(plan: "Plan") -> str:
    time = plan.time
    if not time.trainings:
        return "Time: nothing left to train"
    minutes = time.seconds / plan.workers / 60
    long = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    took = "less than a minute" if minutes < 1 else f"about {long}"
    source = {
        0: "by past runs",
        time.trainings: "a guess: no past run is like these",
    }.get(time.guessed, f"by past runs, {time.guessed} of {time.trainings} guessed")
    workers = _count(plan.workers, "worker")
    return f"Time: {took} for {time.trainings} trainings with {workers} ({source})"


def _money(plan: "Plan") -> str:
    if not plan.money.questions:
        return "Money: nothing to ask an LLM"
    price = "at a price that is not known" if plan.money.usd is None else f"${plan.money.usd:.2f}"
    return f"Money: {plan.money.questions} questions to an LLM, {price}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_summary(console: Console, summary: "ExperimentSummary") -> None:
    table = plain_table("point", "state", "trained", "cached", "failed")
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
    print_comparison(console, summary)
