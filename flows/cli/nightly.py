"""Commands about the nightly flow and what it publishes: `nightly`, `champion`, `recommend`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.common import (
    AsJson,
    Config,
    DataDir,
    Set,
    Verbose,
    command,
    echo_json,
    emit,
    plain_table,
    print_lines,
    stage_table,
    terminal,
    wide_console,
)

if TYPE_CHECKING:
    from flows.nightly_retrain import Ended
    from tasks.publishing.manifest import Manifest
    from tasks.publishing.recommendation_lookup import Found

app = typer.Typer()
champion = typer.Typer(
    help="Show, approve or roll back the published version.", no_args_is_help=True
)
app.add_typer(champion, name="champion")

Experiment = Annotated[str | None, typer.Option(help="Required if several are published.")]


@app.command()
def nightly(
    config: Config,
    overrides: Set = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a challenger on all interactions; publish it if it is not worse than the champion."""
    with command(data_dir, verbose, writes=True):
        from flows.nightly_retrain import nightly_retrain
        from tasks.config.pipeline_file import load
        from tasks.execution.progress import bars

        pipeline = load(config, overrides or [])
        with bars(terminal(stderr=True)):
            ended = nightly_retrain(pipeline)
        emit(ended, as_json, _print_night)


@champion.command()
def show(experiment: Experiment = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the published version, the kept versions and the last nights."""
    with command(data_dir):
        from models.report.wording import worth
        from tasks.nightly.promotion_log import newest, promotions
        from tasks.publishing.manifest import current, the_experiment, versions

        name = the_experiment(experiment)
        now = current(name)
        assert now is not None
        kept, nights = versions(name), promotions(name)
        if as_json:
            found = {
                "experiment": name,
                "current": now.model_dump(mode="json"),
                "versions": [version.version for version in kept],
                "nights": nights,
                "knowledge": newest(name),
            }
            echo_json(found)
            return
        _show_champion(now, kept)
        table = plain_table("night (UTC)", "decision", "challenger", "reason")
        for night in nights[:10]:
            when = f"{night['decided_at']:%Y-%m-%d %H:%M}"
            version = night["challenger_version"] or ""
            table.add_row(when, night["decision"], version, night["reason"])
        wide_console().print(table)
        print_lines(wide_console(), *map(worth, newest(name)))


@champion.command()
def rollback(
    experiment: Experiment = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Make the previous version current again; repeat to go further back."""
    with command(data_dir):
        from tasks.publishing.manifest import the_experiment
        from tasks.publishing.versions import rollback as go_back

        _swapped(*go_back(the_experiment(experiment)), as_json)


@champion.command()
def approve(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="See `champion show`.")],
    experiment: Experiment = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a version current that breached a guardrail and waits for approval."""
    with command(data_dir):
        from tasks.nightly.promotion_log import record
        from tasks.publishing.manifest import the_experiment
        from tasks.publishing.versions import approve as make_current

        was, now = make_current(the_experiment(experiment), version)
        record([now.decision.model_copy(update={"decision": "published"})])
        _swapped(was, now, as_json)


def _swapped(was: "Manifest", now: "Manifest", as_json: bool) -> None:
    """Deliver what has become current, and say so."""
    from tasks.nightly.alerts import deliver_current

    deliver_current(now.experiment, was.sinks)
    if as_json:
        echo_json({"experiment": now.experiment, "was": was.version, "now": now.version})
    else:
        told = f"{now.experiment}: {now.version} is current, instead of {was.version}"
        print_lines(wide_console(), told)


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(metavar="USER", help="Raw id of the user.")],
    k: Annotated[int | None, typer.Option("-k", min=1, help="Length; default: up to 10.")] = None,
    experiment: Experiment = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the published recommendations of a user."""
    with command(data_dir):
        from tasks.publishing.manifest import the_experiment
        from tasks.publishing.recommendation_lookup import recommended

        found = recommended(the_experiment(experiment), user, k)
        emit(found, as_json, _print_recommended)


@app.command()
def api(
    experiment: Experiment = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    data_dir: DataDir = None,
) -> None:
    """Serve the published lists over HTTP; a new version is swapped in without a restart."""
    with command(data_dir):
        import uvicorn

        from flows.lists_api import lists_api
        from tasks.publishing.manifest import the_experiment

        app = lists_api(the_experiment(experiment))
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)


def _print_recommended(console: Console, found: "Found") -> None:
    table = plain_table("", "item", "title", "score")
    for row in found.items:
        title = row.title or ""
        if row.year is not None:
            title = f"{title} ({row.year})".strip()
        table.add_row(str(row.rank), row.item_id, title, f"{row.score:.4f}")
    console.print(table)
    print_lines(console, f"{found.experiment} {found.version}, source: {found.source}")


def _print_night(console: Console, ended: "Ended") -> None:
    from models.report.wording import worth

    console.print(stage_table(ended.stages))
    print_lines(
        console,
        f"{ended.decision}: {ended.reason}",
        f"Current version: {ended.version or 'none'}",
        *map(worth, ended.knowledge),
    )


def _show_champion(now: "Manifest", kept: "list[Manifest]") -> None:
    source = now.knowledge.get("profile_source")
    known = f", profiles {source} ({now.knowledge['profile_provenance']})" if source else ""
    print_lines(
        wide_console(),
        f"{now.experiment}: {now.version}, published {now.created_at:%Y-%m-%d %H:%M} UTC",
        f"{now.job.model} {now.job.arm} seed {now.job.seed} on {now.dataset}{known}",
        f"{now.decision.decision}: {now.decision.reason}",
        f"Lists for {now.users_served} of {now.users_known} users, {now.users_by_model} of them by "
        f"the model, which has learnt from {now.served_from} interactions",
        *(now.knowledge.get("warnings") or "").splitlines(),
        *(f"Vectors of {side}: {meaning}" for side, meaning in now.vectors.items()),
        f"Folder: {now.folder}",
        f"Kept versions: {', '.join(version.version for version in kept)}",
    )
