"""Commands about the nightly flow and what it publishes: `nightly`, `champion`, `recommend`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.common import (
    AsJson,
    Config,
    DataDir,
    Set,
    Verbose,
    plain_errors,
    settle,
    wide_console,
)

if TYPE_CHECKING:
    from flows.nightly_retrain import Ended
    from tasks.publishing.manifest import Manifest

app = typer.Typer()
champion = typer.Typer(help="Show or roll back the published version.", no_args_is_help=True)
app.add_typer(champion, name="champion")

Experiment = Annotated[
    str | None, typer.Option(help="Required if several experiments are published.")
]


@app.command()
def nightly(
    config: Config,
    overrides: Set = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a challenger on all interactions; publish it if it is not worse than the champion."""
    settle(data_dir, verbose)
    with plain_errors(verbose):
        from flows.nightly_retrain import nightly_retrain
        from tasks.config.pipeline_file import load
        from tasks.execution.progress import bars

        pipeline = load(config, overrides or [])
        with bars(Console(stderr=True)):
            ended = nightly_retrain(pipeline)
        if as_json:
            typer.echo(ended.model_dump_json())
        else:
            _show_night(ended)


@champion.command()
def show(experiment: Experiment = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the published version, the kept versions and the last nights."""
    settle(data_dir)
    with plain_errors():
        from tasks.nightly.promotion_log import promotions
        from tasks.publishing.manifest import current, the_experiment, versions

        name = the_experiment(experiment)
        now = current(name)
        assert now is not None
        kept, nights = versions(name), promotions(name)
        if as_json:
            found = {
                "experiment": name,
                "current": now.model_dump(mode="json"),
                "versions": [of.version for of in kept],
                "nights": nights,
            }
            typer.echo(json.dumps(found, default=str))
            return
        _show_champion(now, kept)
        table = Table("night (UTC)", "decision", "reason", box=None, pad_edge=False)
        for of in nights[:10]:
            table.add_row(f"{of['decided_at']:%Y-%m-%d %H:%M}", of["decision"], of["reason"])
        wide_console().print(table)


@champion.command()
def rollback(
    experiment: Experiment = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Make the previous version current again; repeat to go further back."""
    settle(data_dir)
    with plain_errors():
        from tasks.publishing.manifest import the_experiment
        from tasks.publishing.versions import rollback as go_back

        name = the_experiment(experiment)
        was, now = go_back(name)
        if as_json:
            typer.echo(json.dumps({"experiment": name, "was": was.version, "now": now.version}))
        else:
            typer.echo(f"{name}: {now.version} counts again, no longer {was.version}")


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="Raw id of the user.")],
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Length of the list. Default: up to 10.")
    ] = None,
    experiment: Experiment = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the published recommendations of a user."""
    settle(data_dir)
    with plain_errors():
        from tasks.publishing.manifest import the_experiment
        from tasks.publishing.recommendation_lookup import recommended

        found = recommended(the_experiment(experiment), user, k)
        if as_json:
            typer.echo(found.model_dump_json())
            return
        table = Table("", "item", "title", "score", box=None, pad_edge=False)
        for row in found.items:
            title = row.title or ""
            if row.year is not None:
                title = f"{title} ({row.year})".strip()
            table.add_row(str(row.rank), row.item_id, title, f"{row.score:.4f}")
        console = wide_console()
        console.print(table)
        console.print(f"{found.experiment} {found.version}", highlight=False)


def _show_night(ended: "Ended") -> None:
    console = wide_console()
    table = Table("stage", "", "state", "seconds", box=None, pad_edge=False)
    for record in ended.stages:
        of = f"{record.model} {record.arm}" if record.model else record.side or ""
        table.add_row(record.name, of, record.state, f"{record.seconds:.1f}")
    console.print(table)
    console.print(f"{ended.decision}: {ended.reason}", highlight=False)
    console.print(f"Current version: {ended.version or 'none'}", highlight=False)


def _show_champion(now: "Manifest", kept: "list[Manifest]") -> None:
    source = now.knowledge.get("profile_source")
    known = f", profiles {source} ({now.knowledge['profile_provenance']})" if source else ""
    lines = [
        f"{now.experiment}: {now.version}, published {now.created_at:%Y-%m-%d %H:%M} UTC",
        f"{now.job.model} {now.job.arm} seed {now.job.seed} on {now.dataset}{known}",
        f"{now.decision.decision}: {now.decision.reason}",
        f"Recommendations for {now.users_served} of {now.users_known} users; the others have no "
        "training interactions",
        *(f"Vectors of {side}: {meaning}" for side, meaning in now.vectors.items()),
        f"Folder: {now.folder}",
        f"Kept versions: {', '.join(of.version for of in kept)}",
    ]
    console = wide_console()
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
