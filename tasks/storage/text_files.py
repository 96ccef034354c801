"""The content of text files in blocks, unpacked; the kind of a file by its first bytes."""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, Any

from models.dataset import delimited_text
from models.dataset.delimited_text import Source
from models.errors import BadInput

_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, OSError)
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"
_CSV = "Save it as CSV in UTF-8"
_OTHERS = (
    # first bytes, where they stand, what they begin, what to do
    (_PARQUET, 0, "Parquet", "Set dataset.format to parquet"),
    (b"\xd0\xcf\x11\xe0", 0, "an Excel workbook", _CSV),
    (b"ustar", 257, "a tar archive", "Unpack it and name one of its files"),
    (b"\x28\xb5\x2f\xfd", 0, "packed by zstd", "Unpack it"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive", "Unpack it and name one of its files"),
    (b"Rar!", 0, "a RAR archive", "Unpack it and name one of its files"),
    (b"SQLite format 3", 0, "a SQLite database", "Export a table as CSV"),
    (b"\x89HDF", 0, "HDF5", _CSV),
    (b"\x93NUMPY", 0, "a NumPy array", _CSV),
    (b"\x80\x04\x95", 0, "a Python pickle", _CSV),
    (b"\x80\x05\x95", 0, "a Python pickle", _CSV),
    (b"ARROW1", 0, "an Arrow file", "Write it as Parquet"),
    (b"%PDF", 0, "a PDF", _CSV),
)
_PAGE = (b"<!doctype html", b"<html")


def text_source(path: Path, file: str) -> Source:
    """The content of a text file, unpacked as its first bytes say; `file` is its name in messages.

    A zip file is opened if it has one member. Reading raises BadInput for any other archive, for
    what is no text, and for a damaged archive.
    """
    return partial(_content, path, file)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does, whatever its name."""
    return _start(path).startswith(_PARQUET)


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(512)


def _content(path: Path, file: str) -> Iterator[bytes]:
    start = _start(path)
    packed = start.startswith((*_PACKED, _ZIP))
    try:
        with _opened(path, file, start) as stream:
            content = stream.read(delimited_text.BLOCK)
            _require_text(content[:512], file)
            while content:
                yield content
                content = stream.read(delimited_text.BLOCK)
    except _DAMAGED as error:
        if not packed:
            raise
        raise BadInput(
            f"{file}: the archive is damaged or ends too early ({error}). Fetch or pack it again."
        ) from error


def _opened(path: Path, file: str, start: bytes) -> AbstractContextManager[IO[bytes]]:
    if start.startswith(_ZIP):
        return _only_member(zipfile.ZipFile(path), file)
    unpacked = next((found for mark, found in _PACKED.items() if start.startswith(mark)), open)
    stream: IO[bytes] = unpacked(path, "rb")
    return stream


def _only_member(archive: zipfile.ZipFile, file: str) -> IO[bytes]:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in names:
        raise BadInput(f"{file}: it is an Excel workbook. {_CSV}.")
    # What macOS adds to an archive is no data.
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise BadInput(
            f"{file}: a zip file of {len(names)} files ({', '.join(names[:5])}). Unpack it and "
            "name one of them."
        )
    if archive.getinfo(names[0]).flag_bits & 1:
        raise BadInput(f"{file}: the zip file has a password. Unpack it.")
    return archive.open(names[0])


def _require_text(start: bytes, file: str) -> None:
    for mark, place, kind, fix in _OTHERS:
        if start[place:].startswith(mark):
            raise BadInput(f"{file}: it is {kind}, not text. {fix}.")
    if start.lstrip().lower().startswith(_PAGE):
        raise BadInput(f"{file}: it is a web page, not data. Download the file itself.")
    if start.startswith((*_PACKED, _ZIP)):
        raise BadInput(f"{file}: it is packed twice. Unpack it.")
