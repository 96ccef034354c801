"""What all commands of `llmkt` share: options, error messages, where Prefect keeps its state."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from models.credentials import masked
from models.errors import BadInput
from models.plain_text import as_json, for_terminal

if TYPE_CHECKING:
    from flows.steps.comparison import Summary
    from tasks.execution.stage import StageRecord

M = TypeVar("M", bound=BaseModel)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Pipeline file (YAML).")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key, such as training.epochs=5; repeatable.",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Data folder, or s3://BUCKET/PREFIX. Default: LLMKT_DATA_DIR, then data/ of the "
        "project.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write one line of JSON to standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Prefect's log, tracebacks.")]


UI_ORIGINS = "http://127.0.0.1:4200,http://localhost:4200"
"""As in `[tool.prefect.server.api]`: where the UI of `make serve` is."""
TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended, by the shells' convention."""


@contextmanager
def plain_errors(verbose: bool = False) -> Iterator[None]:
    """Turn what the user can mend into one sentence and exit code 2, a failure into code 1.

    SIGTERM ends with code 143 and the same sentence as Ctrl-C, so that what the process started,
    Prefect's temporary server and workers, ends with it.
    """
    console = terminal(stderr=True, soft_wrap=True)
    try:
        with _terminable():
            yield
    except BadInput as error:
        console.print(_told("Error", str(error)))
        raise typer.Exit(2) from error
    except (KeyboardInterrupt, Terminated) as error:
        console.print("Stopped; whatever was finished stays cached.")
        raise typer.Exit(TERMINATED if isinstance(error, Terminated) else 1) from error
    except Exception as error:
        from tasks.storage.disk_errors import reason

        why = reason(error)
        if why is not None:
            console.print(_told("Error", f"{error}: {why}, then run again"))
            raise typer.Exit(2) from error
        if verbose:
            raise
        console.print(
            _told("Failed", f"{type(error).__name__}: {masked(str(error))}"),
            "\nWhatever was finished stays cached. For the traceback add --verbose.",
            sep="",
        )
        raise typer.Exit(1) from error


def _told(kind: str, text: str) -> Text:
    return Text.assemble((f"{kind}: ", "bold red"), text)


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM; while the process then ends, a second one changes nothing.

    By default Python would end at once and leave running what is stopped when it exits. Prefect
    passes the signal on after a flow, to whom it belonged before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    after = before
    try:
        yield
    except Terminated:
        after = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, after)


@contextmanager
def command(
    data_dir: str | None = None, verbose: bool = False, writes: bool = False
) -> Iterator[None]:
    """Set Prefect up for a command, and turn its errors into one sentence and an exit code."""
    with plain_errors(verbose):
        configure_prefect(data_dir, verbose)
        if writes:  # checked before Prefect starts a server there
            from tasks.execution.prefect_server import require_prefect
            from tasks.storage.artifacts import require_writable

            require_writable()
            require_prefect()
        yield


def configure_prefect(data_dir: str | None, verbose: bool = False) -> None:
    """Fix what Prefect reads when it is imported: where it keeps its state and how it logs.

    `[tool.prefect]` in pyproject.toml says the same for `prefect` itself, but holds only in the
    project's folder, while `llmkt` may be called from anywhere. Run logs reach Prefect's
    database in full; only the terminal is kept quiet.
    """
    from tasks.storage import data_dir as places

    if data_dir is not None:
        where = data_dir if places.is_url(data_dir) else str(Path(data_dir).expanduser().resolve())
        os.environ["LLMKT_DATA_DIR"] = where
    home = places.data_dir()
    with suppress(OSError):  # a folder that cannot be written may still be read
        home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # Prefect's default lets every web page use the API.
    os.environ.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", UI_ORIGINS)
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def wide_console() -> Console:
    """A console on which a comparison's columns fit, also where there is no terminal."""
    console = terminal()
    return console if console.is_terminal else terminal(width=140)


class _Terminal(Console):
    """Shows what others wrote as text: markup means nothing, control characters do nothing."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Replace control characters in all that is shown; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else for_terminal(segment.text)
            yield Segment(text, segment.style, segment.control)

    def render_str(self, text: str, **options: Any) -> Text:
        """Likewise before the width of a text is measured."""
        return super().render_str(for_terminal(text), **options)


def terminal(**options: Any) -> Console:
    """Make the console of a command; the only way that commands print for people."""
    return _Terminal(markup=False, emoji=False, highlight=False, **options)


def emit(found: M, as_json: bool, print_it: Callable[[Console, M], None]) -> None:
    """Print a result as one line of JSON, or as `print_it` does for people."""
    if as_json:
        echo_json(found.model_dump(mode="json"))
    else:
        print_it(wide_console(), found)


def echo_json(value: Any) -> None:
    """Print one line of JSON."""
    typer.echo(as_json(value))


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are, without markup and without breaking paths."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def plain_table(*columns: str) -> Table:
    """A table without lines."""
    return Table(*columns, box=None, pad_edge=False)


def stage_table(records: "Iterable[StageRecord]") -> Table:
    """One row per stage: its name, whom it concerns, state and seconds."""
    table = plain_table("stage", "", "state", "seconds")
    for record in records:
        concerned = f"{record.model} {record.arm}" if record.model else record.side or ""
        table.add_row(record.name, concerned, record.state, f"{record.seconds:.1f}")
    return table


def print_comparison(console: Console, summary: "Summary") -> None:
    """Print the comparison of a run or an experiment, its reference models and its report."""
    from models.report.wording import beyond_controls
    from tasks.results.queries import comparison_rows
    from tasks.results.tables import comparison_table

    if summary.comparison:
        console.print(comparison_table(comparison_rows(summary.experiment)))
        print_lines(console, f"All metrics: llmkt compare {summary.experiment} --all")
    print_lines(console, *(reference.sentence() for reference in summary.references))
    if summary.report:
        print_lines(console, f"Report: {summary.report}")
    if summary.comparison:
        print_lines(console, *beyond_controls(comparison_rows(summary.experiment, "all")))
