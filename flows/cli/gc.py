"""`llmkt gc`: removes what no result that is kept refers to."""

from typing import Annotated

import typer
from rich.table import Table

from flows.cli.common import AsJson, DataDir, plain_errors, settle, wide_console


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files; remove nothing.")] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Keep results younger than this many days.")
    ] = 30.0,
    keep_count: Annotated[
        int, typer.Option(min=0, help="Keep the newest results of each stage, however old.")
    ] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove old results, and files that no kept or published result needs."""
    settle(data_dir)
    with plain_errors():
        from tasks.storage.garbage_collection import sweep

        swept = sweep(keep_days, keep_count, dry_run)
        if as_json:
            typer.echo(swept.model_dump_json())
            return
        table = Table("file", "bytes", "why", box=None, pad_edge=False)
        for removal in swept.removed:
            table.add_row(removal.path, f"{removal.bytes:,}", removal.why)
        if swept.removed:
            wide_console().print(table)
        verb = "would be removed" if dry_run else "removed"
        typer.echo(f"{len(swept.removed)} files, {swept.bytes:,} bytes {verb}")
