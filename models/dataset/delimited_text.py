"""Read delimited text of any dialect: the one reader, and the one place that knows dialects.

`Dialect` describes encoding, delimiter, quotes and header, `dialect_detection.detect` guesses them,
`read` reads.
Every record is either returned or refused with its line number and the reason; a file in which the
ends of records are uncertain is refused as a whole. All work is done on blocks of lines, none per
row.
"""

import codecs
import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from models.arrow import Ints, joined
from models.dataset.record_blocks import REFUSED, SHOWN, Block, require_columns
from models.dataset.text_encoding import detect_encoding
from models.errors import BadInput

BLOCK = 1 << 24
"""Bytes that are read at once, and the length that no line may exceed."""
DETECT = "detect"
"""An encoding that is left to `detect_encoding`."""

_EMPTY = "the file is empty. Write one record a line."
_QUOTES = "quotes do not match"
_QUOTED = '"(?:[^"]|"")*"'
_CONTROL = r"[\x00-\x08\x0a-\x1f\x7f]"
RECBOLE_TYPE = re.compile(r":(token|float)(_seq)?$")
Source = Callable[[], Iterable[bytes]]
"""Opens a file's content from its start, in blocks of about `BLOCK` bytes."""


@dataclass(frozen=True)
class Dialect:
    """How a file writes records.

    Attributes:
        delimiter: between values, one or more characters.
        quoted: whether values may stand in double quotes, and then hold delimiters and doubled
            quotes; for a delimiter of one character.
        escaped: whether a backslash inside quotes may stand before a quote or a backslash.
        multiline: whether quoted values may hold line ends as well. If not, each line is a record.
        encoding: the text's encoding, or `DETECT`. A byte order mark is no part of the text.
        header: whether the first record names the columns.
        names: the columns' names where no header gives them; empty: their numbers, from 1.
        section: the configuration's section that sets all this, for advice; empty: none does.
    """

    delimiter: str = ","
    quoted: bool = True
    escaped: bool = False
    multiline: bool = True
    encoding: str = "utf-8"
    header: bool = True
    names: tuple[str, ...] = ()
    section: str = ""


def read(
    source: Source,
    dialect: Dialect,
    file: str,
    wanted: Sequence[str],
    optional: Sequence[str] = (),
    key: str = "",
) -> Iterator[Block]:
    """Read the columns `wanted`, and those of `optional` that the file has, as text.

    For messages: `file` is its name, `key` the setting that names its columns (empty: none).

    Raises:
        BadInput: for a missing or ambiguous column, an empty file, another encoding, an endless
            line, and a quote that never closes, so that it is not known where records end.
    """
    names: list[str] = []
    for found in records(source, dialect, file):
        if not names:
            names, found = _named(found, dialect, file)
            if not names:
                continue
            delimiter = f"{dialect.section}.delimiter" if dialect.section else ""
            require_columns(names, wanted, file, key, delimiter)
        columns = [*wanted, *(name for name in optional if name in names and name not in wanted)]
        yield _divided(found, dialect, names, columns, file)
    if not names and not dialect.names:
        raise BadInput(f"{file}: {_EMPTY}")


def column_names(source: Source, dialect: Dialect, file: str) -> list[str]:
    """Read the names in a file's first record, without RecBole's types (`user_id:token`).

    Raises:
        BadInput: if the file is empty or cannot be decoded.
    """
    for found in records(source, dialect, file):
        names, _ = _named(found, dialect, file)
        if names:
            return names
    raise BadInput(f"{file}: {_EMPTY}")


# Bytes to lines to records


def records(source: Source, dialect: Dialect, file: str) -> Iterator[pa.RecordBatch]:
    """Divide a file into records; a quoted value may join lines, and blank lines are no records.

    Yields `row`, the number of a record's first line from 1, int64, and `line`, its text,
    large_string. Raises BadInput for another encoding, an endless line and an unclosed quote.
    """
    waiting, n_lines = pa.array([], pa.large_string()), 0
    for lines in _lines(source, dialect, file):
        first = n_lines + 1 - len(waiting)
        n_lines += len(lines)
        lines = pa.concat_arrays([waiting, lines])
        starts = _starts(lines, dialect)
        waiting = lines.slice(int(starts[-1]))
        if waiting.nbytes > 2 * BLOCK:
            break
        text = lines.slice(0, int(starts[-1]))
        if len(starts) - 1 != len(text):
            text = joined(starts, text, "\n")
        yield _without_blanks(pa.array(starts[:-1] + first), text)
    if len(waiting):
        raise _unclosed(dialect, file, n_lines + 1 - len(waiting))


def _lines(source: Source, dialect: Dialect, file: str) -> Iterator[pa.Array]:
    """Blocks of lines without their ends, large_string."""
    n_lines, rest = 0, b""
    for text in _as_utf8(source, dialect, file):
        whole, newline, rest = (rest + text).rpartition(b"\n")
        if newline:
            lines = _split(whole, dialect)
            n_lines += len(lines)
            yield lines
        if len(rest) > BLOCK:
            raise BadInput(
                f"{file}, row {n_lines + 1}: the line is longer than {BLOCK} bytes. Check that "
                "this is a text file with line ends of Unix or Windows."
            )
    if rest:
        yield _split(rest, dialect)


def _as_utf8(source: Source, dialect: Dialect, file: str) -> Iterator[bytes]:
    if dialect.encoding == DETECT:
        dialect = replace(dialect, encoding=detect_encoding(source, file)[0])
    name = codecs.lookup(dialect.encoding).name
    # The signature of utf-8-sig is the byte order mark.
    decoder = codecs.lookup("utf-8-sig" if name == "utf-8" else name).incrementaldecoder()
    n_lines = 0
    for raw in chain(source(), [b""]):
        try:
            text = decoder.decode(raw, final=not raw)
            encoded = text.encode()
        except UnicodeError as error:
            before = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
            row = n_lines + before.count(b"\n") + 1
            raise _wrong_encoding(source, row, dialect, file) from error
        n_lines += text.count("\n")
        yield encoded


def _wrong_encoding(source: Source, row: int, dialect: Dialect, file: str) -> BadInput:
    fix = f"Save the file as {dialect.encoding}."
    if dialect.section:
        with contextlib.suppress(BadInput):
            fix = f"Set {dialect.section}.encoding to {detect_encoding(source, file)[0]}."
    return BadInput(f"{file}, row {row}: it is not {dialect.encoding}. {fix}")


def _split(text: bytes, dialect: Dialect) -> pa.Array:
    if dialect.escaped:
        kept = "\ue000".encode()
        text = text.replace(rb"\\", kept).replace(rb"\"", b'""').replace(kept, b"\\")
    whole = pa.array([text], pa.large_binary()).cast(pa.large_string())
    lines = pc.split_pattern(whole, "\n").flatten()
    return pc.replace_substring_regex(lines, r"\r$", "") if b"\r" in text else lines


def _starts(lines: pa.Array, dialect: Dialect) -> Ints:
    """The line on which each record starts, and where the one starts that is not complete."""
    ends = np.arange(1, len(lines) + 1)
    if dialect.quoted and dialect.multiline:
        quotes = pc.count_substring(lines, '"').to_numpy(zero_copy_only=False)
        ends = ends[np.cumsum(quotes) % 2 == 0]
    return np.concatenate([[0], ends]).astype(np.int64)


def _without_blanks(rows: pa.Array, text: pa.Array) -> pa.RecordBatch:
    # A line of tabs alone is a row of empty values, not a blank line.
    some = pc.not_equal(pc.utf8_trim_whitespace(text), "")
    some = pc.or_(some, pc.match_substring(text, "\t"))
    return pa.record_batch([rows.filter(some), text.filter(some)], ["row", "line"])


def _unclosed(dialect: Dialect, file: str, row: int) -> BadInput:
    option = ", or run llmkt init on the file, which finds the quoting that it has"
    return BadInput(
        f"{file}, row {row}: a quote opens and does not close at the end of a value. Mend the row"
        f"{option if dialect.section else ''}."
    )


# Records to values


def _named(found: pa.RecordBatch, dialect: Dialect, file: str) -> tuple[list[str], pa.RecordBatch]:
    """The columns' names, and the records without a header."""
    if dialect.names or not found.num_rows:
        return list(dialect.names), found
    first = found["line"][0].as_py()
    if re.search(_CONTROL, first):
        raise BadInput(
            f"{file}, row {found['row'][0]}: the first line has control characters. Save the file "
            "with line ends of Unix or Windows, and check its encoding."
        )
    values = cells(first, dialect)
    if not dialect.header:
        return [str(number + 1) for number in range(len(values))], found
    return [RECBOLE_TYPE.sub("", value.strip()) for value in values], found.slice(1)


def cells(record: str, dialect: Dialect) -> list[str]:
    """Divide one record into its values."""
    if dialect.quoted and '"' in record:
        with contextlib.suppress(csv.Error):
            return next(csv.reader([record], delimiter=dialect.delimiter))
    return record.split(dialect.delimiter)


def _divided(
    found: pa.RecordBatch, dialect: Dialect, names: list[str], columns: list[str], file: str
) -> Block:
    faults = _faults(found["line"], dialect, len(names))
    bad = pc.is_valid(faults)
    refused, good = found.filter(bad), found.filter(pc.invert(bad))
    # A stray quote may have joined lines that are records of their own.
    doubtful = pc.and_(
        pc.equal(faults.filter(bad), _QUOTES), pc.match_substring(refused["line"], "\n")
    )
    if pc.any(doubtful).as_py():
        raise _unclosed(dialect, file, refused["row"].filter(doubtful)[0].as_py())
    shown = pc.utf8_slice_codeunits(refused["line"], 0, SHOWN)
    places = [names.index(name) for name in columns]
    return Block(
        good["row"],
        good["line"],
        pa.table(_values(good["line"], dialect, len(names), places), columns),
        pa.table([refused["row"], shown, faults.filter(bad)], schema=REFUSED),
    )


def _faults(text: pa.Array, dialect: Dialect, n_values: int) -> pa.Array:
    """Why a record cannot be divided, string (n,); null where it can."""
    faults = pa.nulls(len(text), pa.string())
    if dialect.quoted and pc.any(pc.match_substring(text, '"')).as_py():
        mark = re.escape(dialect.delimiter)
        value = f'(?:{_QUOTED}|[^"{mark}]*)'
        well_quoted = pc.match_substring_regex(text, f"^{value}(?:{mark}{value})*$")
        faults = pc.if_else(well_quoted, faults, _QUOTES)
        text = pc.replace_substring_regex(text, _QUOTED, "")
    # A line end outside of quotes is a control character, too: then the quotes do not match.
    unclean = pc.and_(pc.match_substring_regex(text, _CONTROL), pc.is_null(faults))
    faults = pc.if_else(unclean, "it holds control characters", faults)
    n_found = pc.add(pc.count_substring(text, dialect.delimiter), 1).cast(pa.string())
    counted = pc.binary_join_element_wise(n_found, f"values instead of {n_values}", " ")
    other = pc.and_(pc.not_equal(n_found, str(n_values)), pc.is_null(faults))
    return pc.if_else(other, counted, faults)


def _values(text: pa.Array, dialect: Dialect, n_values: int, places: list[int]) -> list[pa.Array]:
    """Some values of well-formed records: one large_string (n,) for each of `places`."""
    if not dialect.quoted or not pc.any(pc.match_substring(text, '"')).as_py():
        values = pc.split_pattern(text, dialect.delimiter).flatten()
        firsts = np.arange(0, len(values), n_values)
        return [values.take(pa.array(firsts + place)) for place in places]
    whole = joined(np.array([0, len(text)]), text, "\n")[0].as_buffer()
    table = pa.csv.read_csv(
        pa.BufferReader(whole),
        read_options=pa.csv.ReadOptions(
            column_names=[str(n) for n in range(n_values)],
            block_size=min(max(len(whole) + 1, 1 << 20), (1 << 31) - 1),
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=dialect.delimiter, newlines_in_values=True, ignore_empty_lines=False
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=[str(place) for place in places],
            column_types={str(n): pa.large_string() for n in range(n_values)},
            strings_can_be_null=False,
        ),
    )
    assert table.num_rows == len(text), "each record must give one row"
    return [column.combine_chunks() for column in table.columns]
