"""The content of text files in blocks, unpacked."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from models.dataset import delimited_text
from models.dataset.delimited_text import Source
from models.errors import BadInput

_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)


def text_source(path: Path, file: str) -> Source:
    """The content of a text file, unpacked by its suffix; `file` is its name in messages."""
    return partial(_content, path, file)


def _content(path: Path, file: str) -> Iterator[bytes]:
    with _PACKED.get(path.suffix, open)(path, "rb") as stream:
        while True:
            try:
                content = stream.read(delimited_text.BLOCK)
            except _DAMAGED as error:
                if path.suffix not in _PACKED:
                    raise
                raise BadInput(
                    f"{file}: the archive is damaged or ends too early ({error}). Fetch or pack "
                    "it again."
                ) from error
            if not content:
                return
            yield content
