"""A full, read-only or forbidden disk: a message with its fix instead of a traceback."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import BadInput

_FULL = "there is no space left on the disk. Free some"
_READ_ONLY = "it cannot be written: the disk is read-only. Make it writable or set LLMKT_DATA_DIR"
_FORBIDDEN = "it cannot be written: permission denied. Allow it or set LLMKT_DATA_DIR"
_IN_THE_WAY = "a file is where a folder is needed. Name another folder"
_BY_NUMBER = {
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
_BY_TEXT = {
    r"no space left|disk is full|quota exceeded|file too large": _FULL,
    r"disk i/o error": "the disk cannot be written to. Check it",
    r"read-?only (file system|database)": _READ_ONLY,
    r"permission denied|unable to open database file": _FORBIDDEN,
}
"""SQLite, DuckDB and Arrow say it in words."""


def reason(error: BaseException | None) -> str | None:
    """Say why the disk refused, and the fix, if a refusal is behind `error`; None if not."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _BY_NUMBER:
            return _BY_NUMBER[error.errno]
        if isinstance(error, OSError) or type(error).__module__ in ("sqlite3", "_duckdb", "duckdb"):
            for pattern, why in _BY_TEXT.items():
                if re.search(pattern, str(error), re.IGNORECASE):
                    return why
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Guard a write to `path`: BadInput if the disk refuses; other errors pass."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        why = reason(error)
        if why is None:
            raise
        raise BadInput(f"{path}: {why}, then run again: finished stages are kept.") from error
