"""Files at URLs, fetched once as raw artifacts; an interrupted download is resumed."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from models.errors import BadInput
from tasks.execution.progress import track
from tasks.storage.artifacts import (
    Handle,
    MissingArtifact,
    data_dir,
    discard,
    mirror,
    share,
    write_file,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK = 1 << 22
"""Bytes that a download asks for at once; the earlier ones are kept when a request fails."""

_PACKED = (".gz", ".bz2", ".xz", ".zip")


def is_remote(where: str) -> bool:
    """Tell whether a place is a URL that is not on this machine's disk."""
    return "://" in where and not where.startswith("file://")


def downloads() -> Path:
    """Create the folder of records and of unfinished downloads."""
    folder = data_dir() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _record(url: str, suffix: str) -> Path:
    return downloads() / f"{hashlib.sha256(url.encode()).hexdigest()[:20]}{suffix}"


def forget(url: str) -> None:
    """Forget a download, so that the file is fetched again."""
    if is_remote(url):
        discard(_record(url, ".json"))


def fetched(url: str, key: str) -> Handle:
    """Fetch a URL of any fsspec store as a raw artifact, once, resuming; BadInput naming `key`."""
    with FileLock(_record(url, ".lock")):
        return _known(url) or _fetched(url, key)


def _known(url: str) -> Handle | None:
    """The earlier download, if its record and its artifact are still sound."""
    with contextlib.suppress(FileNotFoundError, ValidationError, MissingArtifact):
        record = _record(url, ".json")
        if not record.is_file():
            mirror(record.parent.name)
        handle = Handle.model_validate_json(record.read_text())
        handle.verify()
        return handle
    return None


def _fetched(url: str, key: str) -> Handle:
    try:
        part = _complete(url)
    except BadInput:
        raise
    except FileNotFoundError as error:
        # For fsspec a server that does not answer has no such file either.
        if _is_unreachable(error):
            raise BadInput(
                f"{key}: {url} cannot be reached ({error.__cause__}). Try again with a network, "
                "or name a local copy."
            ) from error
        raise BadInput(f"{key}: there is no {url}. Correct it, or name a local copy.") from error
    except ImportError as error:
        raise BadInput(f"{key}: {url} needs a package: {error}. Install it.") from error
    except Exception as error:
        kept = _record(url, ".part").stat().st_size if _record(url, ".part").is_file() else 0
        raise BadInput(
            f"{key}: {url} could not be fetched ({type(error).__name__}: {error}); {kept} bytes "
            "are kept. Run again to resume, or name a local copy."
        ) from error
    handle = write_file("raw", suffix_of(url), part)
    _record(url, ".json").write_text(handle.model_dump_json())
    share(_record(url, ".json"))
    part.unlink()
    return handle


def _is_unreachable(error: BaseException) -> bool:
    """Whether a server did not answer, or only with an error of its own."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
    if cause is None or not type(cause).__module__.startswith("aiohttp"):
        return isinstance(cause, ConnectionError | TimeoutError)
    status = getattr(cause, "status", None)
    return not isinstance(status, int) or status >= 500


class _CutShort(OSError):
    """A connection ended before the file did."""


@retry(
    retry=retry_if_exception_type(_CutShort),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(max=5),
    reraise=True,
)
def _complete(url: str) -> Path:
    """The whole file as `.part`, restarted if it changed meanwhile or cannot be resumed."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    # Sizes and versions are asked for anew each time.
    system.invalidate_cache()
    info = system.info(path)
    size = info.get("size")
    version = json.dumps([url, size, info.get("ETag") or str(info.get("LastModified"))])
    part, state = _record(url, ".part"), _record(url, ".version")
    if not state.is_file() or state.read_text() != version:
        part.unlink(missing_ok=True)
        state.write_text(version)
    with track(f"fetching {Path(path).name}", size or 0) as tracker:
        try:
            for done in _append(system, path, part):
                tracker(done)
        except Exception as error:
            if _is_unreachable(error):
                raise _CutShort(str(error)) from error
            raise
    if size is not None and part.stat().st_size != size:
        raise _CutShort(f"{part.stat().st_size} of {size} bytes")
    state.unlink()
    return part


def _append(system: "AbstractFileSystem", path: str, part: Path) -> Iterator[int]:
    begun = part.stat().st_size if part.is_file() else 0
    with system.open(path, "rb", block_size=CHUNK, cache_type="none") as source:
        if begun and source.seekable():
            source.seek(begun)
        else:
            begun = 0
        with part.open("ab" if begun else "wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                target.flush()
                begun += len(chunk)
                yield begun


def suffix_of(where: str) -> str:
    """`.csv`, `.jsonl.gz`: the last suffix, and the one before if that says how it is packed."""
    suffixes = Path(where.partition("?")[0]).suffixes
    packed = bool(suffixes) and suffixes[-1].lower() in _PACKED
    return "".join(suffixes[-2:] if packed else suffixes[-1:]).lower()
