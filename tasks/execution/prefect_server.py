"""Whether Prefect can work, found out in seconds: it would wait minutes for what is not there."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from models.errors import BadInput

_SECONDS = 5.0
_FIX = "Start it (make serve) or unset PREFECT_API_URL"


def require_prefect() -> None:
    """Refuse to start without an answer of the server, or with a damaged database, by name."""
    try:
        from prefect.settings import get_current_settings

        settings = get_current_settings()
    except ValueError as error:
        raise BadInput(
            "Prefect's settings are not valid. Correct or unset the PREFECT_… variables, and look "
            "at `prefect config view`"
        ) from error
    if settings.api.url is not None:
        _require_answer(settings.api.url)
        return
    database = settings.server.database.connection_url
    kind, _, path = (database.get_secret_value() if database else "").partition(":///")
    if kind.startswith("sqlite"):
        _require_whole(Path(path.partition("?")[0]))


def _require_answer(url: str) -> None:
    import httpx2 as httpx

    where = "PREFECT_API_URL"
    try:
        parts = urlsplit(url)
        where += f", {parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
        code = httpx.get(f"{url.rstrip('/')}/health", timeout=_SECONDS).status_code
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        if "certificate" in str(error).lower():
            return  # there is a server; Prefect's own client has settings for it
        raise BadInput(f"{where}: no Prefect server answers there. {_FIX}") from error
    if code >= httpx.codes.BAD_REQUEST and code not in (401, 403):
        raise BadInput(f"{where}: what answers there is no Prefect server (HTTP {code}). {_FIX}")


def _require_whole(path: Path) -> None:
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{path.as_posix()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "unable to open" in str(error):
            return  # busy, or not readable: Prefect says so
        raise BadInput(
            f"{path}: damaged, or no database of Prefect. Move it away with its -wal and -shm "
            "files: it holds the history of runs alone, no results"
        ) from error
