"""Text files of any size as blocks of lines, and these as tables: whatever is wrong is named."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.dataset.delimited_text import (
    LINE,
    REFUSED,
    ROW,
    Syntax,
    divide,
    names_of,
    plain_records,
    records,
    unclosed,
)
from models.errors import BadInput

BLOCK = 1 << 24
"""Bytes that are read at once, and the length that no line may exceed."""

_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclass
class TextFile:
    """A text file that is read in blocks.

    Attributes:
        path: where it is.
        file: its name, for messages.
        encoding: of its text; a byte order mark is no part of it.
        refused: tables of schema `models.dataset.delimited_text.REFUSED`, filled while `tables` is
            read.
    """

    path: Path
    file: str
    encoding: str = "utf-8"
    refused: list[pa.Table] = field(default_factory=list)

    def lines(self, block: int | None = None) -> Iterator[tuple[int, pa.Array]]:
        """Blocks of lines without their ends, large_string, with the first one's number.

        Raises:
            BadInput: for another encoding, a damaged archive or an endless line.
        """
        block = block or BLOCK
        first, rest = 1, b""
        for text in self._blocks(block):
            whole, newline, rest = (rest + text).rpartition(b"\n")
            if newline:
                lines = _split(whole)
                yield first, lines
                first += len(lines)
            if len(rest) > block:
                raise BadInput(
                    f"{self.file}, row {first}: the line is longer than {block} bytes; is this a "
                    "text file, and are its line ends those of Unix or Windows?"
                )
        if rest:
            yield first, _split(rest)

    def _blocks(self, block: int) -> Iterator[bytes]:
        """The file's text as valid UTF-8."""
        decoder = codecs.lookup(self._codec()).incrementaldecoder()
        opener = _PACKED.get(self.path.suffix, open)
        n_lines = 0
        ended = False
        with opener(self.path, "rb") as stream:
            while not ended:
                try:
                    raw = stream.read(block)
                except _DAMAGED as error:
                    raise BadInput(
                        f"{self.file}, after row {n_lines}: the archive is damaged or ends too "
                        f"early ({error}); fetch or pack it again"
                    ) from error
                ended = not raw
                try:
                    text = decoder.decode(raw, final=ended)
                    encoded = text.encode()
                except UnicodeError as error:
                    raise self._wrong_encoding(error, n_lines) from error
                n_lines += text.count("\n")
                yield encoded

    def _codec(self) -> str:
        """The encoding; of UTF-8 the one that leaves out a byte order mark."""
        utf8 = codecs.lookup(self.encoding).name == "utf-8"
        return "utf-8-sig" if utf8 else self.encoding

    def _wrong_encoding(self, error: UnicodeError, n_lines: int) -> BadInput:
        row = n_lines + 1
        if isinstance(error, UnicodeDecodeError):
            row += error.object[: error.start].count(b"\n")
        guess = "latin-1" if self._codec() == "utf-8-sig" else "utf-8"
        return BadInput(
            f"{self.file}, row {row}: it is not {self.encoding}; set dataset.encoding to what it "
            f"is, perhaps {guess}"
        )

    def header(self, syntax: Syntax) -> list[str]:
        """The names in the first line.

        Raises:
            BadInput: if the file is empty, or the line does not name columns.
        """
        for _, lines in self.lines(1 << 16 if self.path.stat().st_size < BLOCK else BLOCK):
            return names_of(lines[0].as_py(), syntax, self.file)
        raise BadInput(f"{self.file} is empty")

    def tables(self, syntax: Syntax, names: list[str], has_header: bool) -> Iterator[pa.Table]:
        """The values as large_string columns `names`, with `row`: the number of a line.

        What cannot be divided into values goes to `refused`.
        """
        waiting = pa.array([], pa.large_string())
        skip = int(has_header)
        for first, lines in self.lines():
            lines, first, skip = lines.slice(skip), first + skip, 0
            if not syntax.quoted:
                rows = pa.array(np.arange(first, first + len(lines)))
                found = plain_records(lines, rows)
            else:
                if len(waiting):
                    first -= len(waiting)
                    lines = pa.concat_arrays([waiting, lines])
                found, left = records(lines, first)
                waiting = lines.slice(len(lines) - left)
                if waiting.nbytes > 2 * BLOCK:
                    raise unclosed(self.file, first + len(lines) - left)
            table, refused = divide(found, syntax, names, self.file)
            self.refused.append(refused)
            yield table
            last = first + len(lines)
        if len(waiting):
            raise unclosed(self.file, last - len(waiting))

    def whole_lines(self) -> Iterator[pa.Table]:
        """Every line that is not blank: `row` and `line`."""
        for first, lines in self.lines():
            found = plain_records(lines, pa.array(np.arange(first, first + len(lines))))
            yield pa.table([found.row, found.text], [ROW, LINE])

    def taken_refused(self) -> pa.Table:
        """The records that could not be divided since this was last asked."""
        taken = pa.concat_tables([REFUSED.empty_table(), *self.refused])
        self.refused.clear()
        return taken


def _split(text: bytes) -> pa.Array:
    whole = pa.array([text], pa.large_binary()).cast(pa.large_string())
    lines = pc.split_pattern(whole, "\n").flatten()
    return pc.replace_substring_regex(lines, r"\r$", "") if b"\r" in text else lines
