"""Lines of separated values: which are well-formed records, and what stands in them.

Everything is done to whole blocks of lines; nothing here runs once per row.
"""

import csv
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from models.arrow import joined
from models.errors import BadInput

ROW = "row"
LINE = "line"
REASON = "reason"
REFUSED = pa.schema(
    [
        pa.field(ROW, pa.int64(), nullable=False),
        pa.field(LINE, pa.large_string()),
        pa.field(REASON, pa.string(), nullable=False),
    ]
)
"""Records that cannot be divided into values: their first line's number, text and fault."""

QUOTES = "quotes do not match"
_SHOWN = 500
_QUOTED = '"(?:[^"]|"")*"'
_CONTROL = r"[\x00-\x1f\x7f]"


@dataclass(frozen=True)
class Syntax:
    """How values are separated.

    Attributes:
        delimiter: between values, one or more characters.
        quoted: whether values may stand in double quotes, and then hold delimiters, doubled
            quotes and line ends.
    """

    delimiter: str
    quoted: bool

    @property
    def well_quoted(self) -> str:
        """Matches a record whose quotes open at the start and close at the end of a value."""
        # Values without quotes are what is left between delimiters, so those of several
        # characters are looked for only outside of quotes: see `n_values`.
        first = re.escape(self.delimiter[0])
        value = f'(?:{_QUOTED}|[^"{first}]*)'
        return f"^{value}(?:{re.escape(self.delimiter)}{value})*$"


@dataclass(frozen=True)
class Records:
    """Records as large_string (n,) and the number of each one's first line, int64 (n,)."""

    text: pa.Array
    row: pa.Array


def names_of(header: str, syntax: Syntax, file: str) -> list[str]:
    """The columns' names in a first line, without RecBole's types (`user_id:token`).

    Raises:
        BadInput: if it does not name columns.
    """
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", header):
        raise BadInput(
            f"{file}, row 1: control characters among the columns' names; if that is a carriage "
            "return, save the file with line ends of Unix or Windows, and check dataset.encoding"
        )
    fields = header.split(syntax.delimiter)
    if syntax.quoted and '"' in header and len(syntax.delimiter) == 1:
        fields = next(csv.reader([header], delimiter=syntax.delimiter))
    return [field.strip() for field in fields]


def records(lines: pa.Array, first: int) -> tuple[Records, int]:
    """Join the lines that a quoted value runs across; blank lines are no records.

    Args:
        lines: large_string (n,), without their ends.
        first: the first line's number.

    Returns:
        The records, and how many lines at the end belong to one that is not complete.
    """
    quotes = pc.count_substring(lines, '"').to_numpy(zero_copy_only=False)
    complete = np.cumsum(quotes) % 2 == 0
    ends = np.flatnonzero(complete) + 1
    starts = np.concatenate([[0], ends]).astype(np.int64)
    left = len(lines) - int(starts[-1])
    text = lines.slice(0, int(starts[-1]))
    if len(ends) != len(text):
        text = joined(starts, text, "\n")
    return plain_records(text, pa.array(starts[:-1] + first)), left


def plain_records(text: pa.Array, rows: pa.Array) -> Records:
    """Lines as records, blank ones left out."""
    some = pc.not_equal(pc.utf8_trim_whitespace(text), "")
    # A line of tabs alone is a row of empty values, not a blank line.
    some = pc.or_(some, pc.match_substring(text, "\t"))
    return Records(text.filter(some), rows.filter(some))


def divide(
    found: Records, syntax: Syntax, names: list[str], file: str
) -> tuple[pa.Table, pa.Table]:
    """Divide records into values.

    Args:
        found: the records.
        syntax: how values are separated.
        names: all columns' names, in order; columns of the same name are told apart by number.
        file: its name, for messages.

    Returns:
        A table with `row` and one large_string column per name, and one of schema `REFUSED`.

    Raises:
        BadInput: if a quote is never closed, so that it is not known where records end.
    """
    faults = _faults(found, syntax, len(names))
    _require_known_ends(found, faults, file)
    bad, good = pc.is_valid(faults), pc.is_null(faults)
    shown = pc.utf8_slice_codeunits(found.text.filter(bad), 0, _SHOWN)
    refused = pa.table([found.row.filter(bad), shown, faults.filter(bad)], schema=REFUSED)
    text, rows = found.text.filter(good), found.row.filter(good)
    columns = _values(text, syntax, len(names))
    unique = [name if names.index(name) == n else f"{name}#{n}" for n, name in enumerate(names)]
    return pa.table([rows, *columns], [ROW, *unique]), refused


def _require_known_ends(found: Records, faults: pa.Array, file: str) -> None:
    """Refuse a file in which a stray quote may have joined lines that are rows of their own."""
    wrong = pc.fill_null(pc.equal(faults, QUOTES), False)
    doubtful = pc.indices_nonzero(pc.and_(wrong, pc.match_substring(found.text, "\n")))
    if len(doubtful):
        raise unclosed(file, found.row[doubtful[0].as_py()].as_py())


def unclosed(file: str, row: int) -> BadInput:
    """The refusal of a file in which it is not known where records end."""
    return BadInput(
        f"{file}, row {row}: a quote opens and does not close at the end of a value; mend the row, "
        "or set dataset.quoting to none if quotes are ordinary characters in this file"
    )


def _faults(found: Records, syntax: Syntax, n_values: int) -> pa.Array:
    """Why a record cannot be divided, string (n,); null where it can."""
    bare = found.text
    faults = pa.nulls(len(bare), pa.string())
    if syntax.quoted and pc.any(pc.match_substring(bare, '"')).as_py():
        wrong = pc.invert(pc.match_substring_regex(bare, syntax.well_quoted))
        faults = pc.if_else(wrong, QUOTES, faults)
        bare = pc.replace_substring_regex(bare, _QUOTED, "")
    # A line end outside of quotes cannot be: then the quotes do not match.
    control = _CONTROL if syntax.delimiter != "\t" else r"[\x00-\x08\x0a-\x1f\x7f]"
    unclean = pc.and_(pc.match_substring_regex(bare, control), pc.is_null(faults))
    faults = pc.if_else(unclean, "it holds control characters", faults)
    n_found = pc.add(pc.count_substring(bare, syntax.delimiter), 1).cast(pa.string())
    counted = pc.binary_join_element_wise(n_found, f"values instead of {n_values}", " ")
    other = pc.and_(pc.not_equal(n_found, str(n_values)), pc.is_null(faults))
    return pc.if_else(other, counted, faults)


def _values(text: pa.Array, syntax: Syntax, n_values: int) -> list[pa.Array]:
    """The values of well-formed records: `n_values` arrays large_string (n,)."""
    if not len(text):
        return [pa.array([], pa.large_string())] * n_values
    if n_values == 1 and not syntax.quoted:
        return [text]
    if syntax.quoted and pc.any(pc.match_substring(text, '"')).as_py():
        return _quoted_values(text, syntax, n_values)
    flat = pc.split_pattern(text, syntax.delimiter).flatten()
    places = np.arange(0, len(flat), n_values)
    return [flat.take(pa.array(places + n)) for n in range(n_values)]


def _quoted_values(text: pa.Array, syntax: Syntax, n_values: int) -> list[pa.Array]:
    whole = joined(np.array([0, len(text)]), text, "\n")[0].as_buffer()
    table = pa.csv.read_csv(
        pa.BufferReader(whole),
        read_options=pa.csv.ReadOptions(
            column_names=[str(n) for n in range(n_values)],
            block_size=min(max(len(whole) + 1, 1 << 20), (1 << 31) - 1),
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=syntax.delimiter, newlines_in_values=True, ignore_empty_lines=False
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={str(n): pa.large_string() for n in range(n_values)},
            strings_can_be_null=False,
        ),
    )
    assert table.num_rows == len(text), "records and what is read of them must agree"
    return [column.combine_chunks() for column in table.columns]
