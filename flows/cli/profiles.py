"""`llmkt profiles`: look at profiles before and after paying for them. No LLM is asked."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.common import AsJson, Config, DataDir, Set, command, emit, print_lines

if TYPE_CHECKING:
    from models.profiles.card import Card
    from models.profiles.text_diff import Word
    from tasks.inspection.current_profiles import Shown
    from tasks.inspection.profile_diff import Difference, Extent
    from tasks.inspection.prompt_cost import Preview

app = typer.Typer(
    help="Inspect profiles and their cost. Asks no LLM.",
    no_args_is_help=True,
)

SideOption = Annotated[
    Literal["users", "items"], typer.Option("--side", help="Profiles of users or of items.")
]
_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_MARKS = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}
_MOST_SEEN = 60


@app.command()
def preview(
    config: Config,
    n: Annotated[int, typer.Option("-n", min=0, help="Number of prompts to show.")] = 1,
    side: SideOption = "users",
    overrides: Set = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show rendered prompts, their tokens and the cost of the whole run. Needs no key."""
    with command(data_dir):
        from tasks.inspection.prompt_cost import preview as look

        found = look(config, overrides or [], n, side)
        emit(found, as_json, _print_preview)


@app.command()
def show(
    config: Config,
    user: Annotated[str, typer.Argument(metavar="ID", help="Raw id of the user or item.")],
    side: SideOption = "users",
    overrides: Set = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show one profile, the interactions it was written from, and its provenance."""
    with command(data_dir):
        from tasks.inspection.current_profiles import Configured
        from tasks.inspection.current_profiles import show as look

        found = look(Configured.read(config, overrides or []), user, side)
        emit(found, as_json, _print_shown)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Pipeline file before the change.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Pipeline file after the change.")],
    n: Annotated[int, typer.Option("-n", min=0, help="Number of profiles to show.")] = 3,
    side: SideOption = "users",
    set_a: Annotated[
        list[str] | None, typer.Option("--set-a", metavar="KEY=VALUE", help="Set a key in A.")
    ] = None,
    set_b: Annotated[
        list[str] | None, typer.Option("--set-b", metavar="KEY=VALUE", help="Set a key in B.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show how profiles and their vectors differ between two configurations."""
    with command(data_dir):
        from tasks.inspection.current_profiles import Configured
        from tasks.inspection.profile_diff import diff as look

        found = look(Configured.read(a, set_a or []), Configured.read(b, set_b or []), n, side)
        emit(found, as_json, _print_difference)


@app.command()
def export(
    config: Config,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pack's folder.")],
    author: Annotated[str, typer.Option("--author", help="Who wrote the texts, e.g. a model.")],
    licence: Annotated[str, typer.Option("--license", help="The texts' licence, e.g. MIT.")],
    side: SideOption = "users",
    overrides: Set = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a knowledge pack of a run's profiles, to share and to read with provider: pack.

    A second call with the same folder adds the other side.
    """
    with command(data_dir):
        from tasks.inspection.current_profiles import Configured
        from tasks.inspection.pack_export import export as make

        configured = Configured.read(config, overrides or [])
        made = make(configured, folder, side, author, licence)
        emit(made, as_json, lambda console, card: _print_pack(console, folder, card))


def _print_pack(console: Console, folder: Path, card: "Card") -> None:
    sides = [side for side in ("users", "items") if getattr(card, side) is not None]
    print_lines(
        console,
        f"{folder}: texts about {' and '.join(sides)} by {card.author}.",
        f"Read {folder / 'card.yaml'} and complete it: about, oddities.",
        f"Use it with profiles: {{provider: pack, path: {folder}}}",
    )


def _print_preview(console: Console, found: "Preview") -> None:
    for sample in found.samples:
        state = ", answered" if sample.answered else ""
        console.rule(f"{found.side[:-1]} {sample.id}: {sample.prompt_tokens} tokens{state}")
        if sample.system:
            console.print(Text(f"[system] {sample.system}", style="dim"))
        console.print(Text(sample.user))
    console.rule(f"prompt {found.prompt}, {found.model}")
    if found.configured_provider != found.provider:
        console.print(
            f"profiles are {found.configured_provider}: a run asks no LLM and pays nothing. "
            f"These are the prompts of provider {found.provider}."
        )
    about = "" if found.tokens.startswith("exact") else "about "
    console.print(
        f"{found.subjects} {found.side}, {found.prompts} different prompts, "
        f"{found.answered} answered before (nothing to pay)"
    )
    console.print(
        f"{about}{found.prompt_tokens:,} prompt tokens ({found.tokens}), "
        f"{found.completion_tokens:,} completion tokens ({found.completions})"
    )
    console.print(
        "left to pay: not known, the price table does not list "
        f"{found.model} (profiles.llm.prices names a table of your own)"
        if found.to_pay_usd is None
        else f"left to pay with {found.model}, {found.provider}: {about}${found.to_pay_usd:.2f}"
    )
    table = Table("model", title=f"Whole run, US dollars, prices of {found.prices_date}")
    for column in ("standard", "batch"):
        table.add_column(column, justify="right")
    for cost in found.costs:
        name = Text(cost.model, style="bold" if cost.configured else "")
        table.add_row(name, f"{about}{cost.standard_usd:.2f}", f"{about}{cost.batch_usd:.2f}")
    console.print(table)


def _print_shown(console: Console, found: "Shown") -> None:
    console.rule(f"{found.side[:-1]} {found.id}")
    if found.text is None:
        console.print("There is no profile yet, and this command asks no LLM. To compute it:")
        console.print(found.command, soft_wrap=True)
    else:
        console.print(Text(found.text))
    writer = f" ({found.llm_model})" if found.llm_model else ""
    console.print(f"\nsource: {found.source}{writer}; provenance: {found.provenance}")
    sha256 = f" (sha256 {found.history_sha256[:16]}…)" if found.history_sha256 else ""
    console.print(f"history: {found.history_count or 'unknown'} interactions{sha256}")
    if found.saw is None:
        return
    table = Table("item", "title", "year", "rating", "when (UTC)")
    for seen in found.saw[:_MOST_SEEN]:
        time = seen.timestamp
        when = "" if time is None else str(datetime.fromtimestamp(time, UTC).date())
        rating = "" if seen.rating is None else f"{seen.rating:g}"
        table.add_row(*map(Text, (seen.item, seen.title, str(seen.year or ""), rating, when)))
    console.print(table)
    if len(found.saw) > _MOST_SEEN:
        console.print(f"… and {len(found.saw) - _MOST_SEEN} more: see --json")


def _print_difference(console: Console, found: "Difference") -> None:
    for change in found.changes:
        moved = "vector not known" if change.cosine is None else f"cosine {change.cosine:.3f}"
        console.rule(f"{found.side[:-1]} {change.id}: {moved}")
        console.print(_marked(change.words, console.is_terminal))
    console.rule("A against B")
    console.print(
        f"{found.both} {found.side} have a profile in both, {found.same_text} of them the same text"
    )
    if found.not_compared:
        console.print(f"Vectors are not compared: they are {found.not_compared}.")
    elif found.cosines:
        table = Table(*found.cosines, title=f"Cosines of {found.compared} {found.side}, A to B")
        table.add_row(*(f"{value:.3f}" for value in found.cosines.values()))
        console.print(table)
    for name, extent in (("A", found.a), ("B", found.b)):
        _print_extent(console, name, extent, found.side)


def _print_extent(console: Console, name: str, extent: "Extent", side: str) -> None:
    console.print(f"{name}: {extent.config}, {extent.source}", soft_wrap=True)
    lacking = {
        "have no profile yet": extent.subjects - extent.written,
        "have a profile whose vector is not computed yet": extent.written - extent.embedded,
    }
    for what, count in lacking.items():
        if count:
            console.print(f"   {count} of {extent.subjects} {side} {what}")
    if any(lacking.values()):
        console.print(f"   to compute them: {extent.command}", soft_wrap=True)


def _marked(words: "list[Word]", coloured: bool) -> Text:
    """The text of both sides; where there is no colour, in the marks of wdiff."""
    text = Text()
    for kind, run in words:
        shown = run if coloured else _MARKS[kind].format(run)
        text.append(f"{shown} ", style=_STYLES[kind])
    return text
