"""`llmkt gc`: removes what no result that is kept refers to."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.common import AsJson, DataDir, command, emit, plain_table

if TYPE_CHECKING:
    from tasks.storage.garbage_collection import Swept


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
