"""New interactions as they arrive: which rows are good, which are not and why, and folding them in.

Good rows are read, judged and folded in whole columns; nothing here runs once per row.
"""

import csv
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from models.arrow import codes, flat, joined
from models.schemas import INTERACTIONS, ITEM, QUARANTINE, RATING, TIMESTAMP, USER

LONGEST_LINE = 1 << 16
"""Bytes; no row of four values is near that long."""
MILLISECONDS_FROM = 1e11
"""Seconds since 1970 would be past the year 5000 here."""
LATEST = 4_102_444_800
"""2100-01-01 in Unix seconds."""

_SHOWN = 500
_CONTROL = r"[\x00-\x1f\x7f]"
_CONTROL_BUT_TAB = r"[\x00-\x08\x0a-\x1f\x7f]"
_NUMBER = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$"
_NOT_FINITE = r"(?i)^[-+]?(nan|inf|infinity)$"
_QUOTED = '"(?:[^"]|"")*"'
_WELL_QUOTED = f'^(?:{_QUOTED}|[^",]*)(?:,(?:{_QUOTED}|[^",]*))*$'


class Unreadable(ValueError):
    """A drop of which no row can be read, with the reason."""


@dataclass(frozen=True)
class Judged:
    """The good rows (schema `INTERACTIONS`) and the others (`QUARANTINE`), in the file's order."""

    interactions: pa.Table
    quarantine: pa.Table


@dataclass(frozen=True)
class Fold:
    """Interactions, one per pair, sorted by user and item; how many pairs are new or newer."""

    interactions: pa.Table
    new: int
    updated: int


def read_text(content: bytes, delimiter: str, file: str) -> Judged:
    """Judge a file of separated values, one interaction a line below a line of column names.

    Args:
        content: the file. Values may stand in double quotes if `delimiter` is a comma.
        delimiter: between the values of a line.
        file: its name, for the quarantine.

    Raises:
        Unreadable: if it is no UTF-8 text, or its first line does not name the columns.
    """
    lines = _lines(content)
    numbers = np.flatnonzero(np.asarray(pc.not_equal(lines, "")))
    if not len(numbers):
        raise Unreadable("it is empty: a first line with the names of the columns is needed")
    names = _column_names(lines[int(numbers[0])].as_py(), delimiter)
    numbers = numbers[1:]
    lines = lines.take(pa.array(numbers))
    rows = pa.array(numbers + 1)
    reasons = _malformed(lines, delimiter, len(names))
    bad = pc.is_valid(reasons)
    quarantine = _quarantine(file, rows.filter(bad), lines.filter(bad), reasons.filter(bad))
    good = pc.invert(bad)
    lines, rows = lines.filter(good), rows.filter(good)
    judged = judge(_values(lines, delimiter, names), rows, lines, file)
    both = pa.concat_tables([quarantine, judged.quarantine]).sort_by("row")
    return Judged(judged.interactions, both)


def _lines(content: bytes) -> pa.Array:
    """The lines without their ends, large_string; a byte order mark is no part of them."""
    try:
        text = pa.array([content.removeprefix(b"\xef\xbb\xbf")], pa.large_binary())
        return pc.ascii_rtrim(pc.split_pattern(text.cast(pa.large_string()), "\n").flatten(), "\r")
    except pa.ArrowInvalid as error:
        raise Unreadable("it is not UTF-8 text") from error


def _column_names(header: str, delimiter: str) -> list[str]:
    if delimiter != ",":
        return column_names(header.split(delimiter))
    try:
        return column_names(next(csv.reader([header])))
    except csv.Error as error:
        raise Unreadable(f"its first line does not name columns: {error}") from error


def column_names(fields: list[str]) -> list[str]:
    """Names of columns without RecBole's types (`user_id:token` is `user_id`).

    Raises:
        Unreadable: if a column of `INTERACTIONS` is missing or occurs twice.
    """
    names = [field.split(":")[0].strip() for field in fields]
    missing = [name for name in INTERACTIONS.names if name not in names]
    if missing:
        has = ", ".join(names)[:_SHOWN]
        raise Unreadable(f"no column {', '.join(missing)}; the columns' names are {has}")
    for name in INTERACTIONS.names:
        if names.count(name) > 1:
            raise Unreadable(f"column {name} occurs {names.count(name)} times")
    return names


def _malformed(lines: pa.Array, delimiter: str, n_fields: int) -> pa.Array:
    """Why a line cannot be divided into the right number of values; null where it can."""
    bare = lines
    checks = [
        (pc.greater(pc.binary_length(lines), LONGEST_LINE), f"longer than {LONGEST_LINE} bytes"),
        (pc.match_substring_regex(lines, _CONTROL_BUT_TAB), "it holds control characters"),
    ]
    if delimiter == ",":
        well_quoted = pc.match_substring_regex(lines, _WELL_QUOTED)
        checks.append((pc.invert(well_quoted), "quotes do not match"))
        bare = pc.replace_substring_regex(lines, _QUOTED, "")
    found = pc.add(pc.count_substring(bare, delimiter), 1).cast(pa.int64())
    counted = pc.binary_join_element_wise(
        found.cast(pa.string()), f"fields instead of {n_fields}", " "
    )
    reasons = _first_reason(len(lines), checks)
    wrong = pc.and_(pc.is_null(reasons), pc.not_equal(found, n_fields))
    return pc.if_else(wrong, counted, reasons)


def _values(lines: pa.Array, delimiter: str, names: list[str]) -> pa.Table:
    """The four columns of well-formed lines, as text."""
    if not len(lines):
        return pa.table({name: pa.array([], pa.string()) for name in INTERACTIONS.names})
    text = joined(np.array([0, len(lines)]), lines, "\n")[0]
    # Other columns may share a name, so they are numbered.
    unique = [name if name in INTERACTIONS.names else f"other {n}" for n, name in enumerate(names)]
    return pa.csv.read_csv(
        pa.BufferReader(text.as_buffer()),
        read_options=pa.csv.ReadOptions(column_names=unique),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if delimiter == "," else False
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=INTERACTIONS.names,
            column_types=dict.fromkeys(INTERACTIONS.names, pa.string()),
            strings_can_be_null=False,
        ),
    )


def judge(values: pa.Table, rows: pa.Array, lines: pa.Array, file: str) -> Judged:
    """Divide rows into good ones and those that must not enter, each with its first fault.

    Args:
        values: the columns of `INTERACTIONS` as text, missing values empty.
        rows: their numbers in the file.
        lines: how they stand there.
        file: its name.
    """
    text = {name: flat(values[name]) for name in INTERACTIONS.names}
    rating, rating_faults = _numbers(text[RATING], RATING)
    rating = rating.cast(pa.float32())
    timestamp, timestamp_faults = _numbers(text[TIMESTAMP], TIMESTAMP)
    checks = [
        *_id_faults(text[USER], USER),
        *_id_faults(text[ITEM], ITEM),
        *rating_faults,
        (_holds(pc.invert(pc.is_finite(rating))), "rating is too large"),
        (pc.equal(text[TIMESTAMP], ""), "timestamp is empty"),
        *timestamp_faults,
        (_holds(pc.less(timestamp, 0)), "timestamp is negative"),
        (_holds(pc.greater(timestamp, MILLISECONDS_FROM)), "timestamp: milliseconds?"),
        (_holds(pc.greater_equal(timestamp, LATEST)), "timestamp is after the year 2099"),
    ]
    reasons = _first_reason(values.num_rows, checks)
    bad, good = pc.is_valid(reasons), pc.is_null(reasons)
    seconds = pc.floor(timestamp.filter(good)).cast(pa.int64())
    columns = [text[USER].filter(good), text[ITEM].filter(good), rating.filter(good), seconds]
    interactions = pa.table(dict(zip(INTERACTIONS.names, columns, strict=True)))
    return Judged(
        interactions.cast(INTERACTIONS),
        _quarantine(file, rows.filter(bad), lines.filter(bad), reasons.filter(bad)),
    )


def _id_faults(ids: pa.Array, column: str) -> list[tuple[pa.Array, str]]:
    trimmed = pc.utf8_trim_whitespace(ids)
    return [
        (pc.equal(trimmed, ""), f"{column} is empty"),
        (pc.match_substring_regex(ids, _CONTROL), f"{column} holds control characters"),
        (pc.not_equal(trimmed, ids), f"{column} has white space around it"),
    ]


def _numbers(text: pa.Array, column: str) -> tuple[pa.Array, list[tuple[pa.Array, str]]]:
    """float64 (rows,), null where there is no number; and what is wrong with the others."""
    is_number = pc.match_substring_regex(text, _NUMBER)
    numbers = pc.if_else(is_number, text, None).cast(pa.float64())
    wrong = pc.and_(pc.not_equal(text, ""), pc.invert(is_number))
    return numbers, [
        (pc.match_substring_regex(text, _NOT_FINITE), f"{column} is NaN or infinite"),
        (wrong, f"{column} is not a number"),
    ]


def _holds(mask: pa.Array) -> pa.Array:
    return pc.fill_null(mask, False)


def _first_reason(n: int, checks: list[tuple[pa.Array, str]]) -> pa.Array:
    """The first check's reason that holds, string (n,); null where none does."""
    reasons = pa.nulls(n, pa.string())
    for mask, reason in reversed(checks):
        reasons = pc.if_else(mask, pa.scalar(reason), reasons)
    return reasons


def _quarantine(file: str, rows: pa.Array, lines: pa.Array, reasons: pa.Array) -> pa.Table:
    shown = pc.utf8_slice_codeunits(lines, 0, _SHOWN).cast(pa.string())
    return pa.table([[file] * len(rows), rows, shown, reasons], schema=QUARANTINE)


def refused(file: str, reason: str) -> Judged:
    """A drop of which nothing can be read: one row of quarantine."""
    table = pa.table([[file], [None], [None], [reason]], schema=QUARANTINE)
    return Judged(INTERACTIONS.empty_table(), table)


def fold(base: pa.Table, drops: list[pa.Table]) -> Fold:
    """Add interactions to a data set; the newest of each pair stays, of equally new ones the last.

    Args:
        base: schema `INTERACTIONS`, each pair once.
        drops: the same schema, pairs in any order and number. An interaction without a time is
            older than any with one.
    """
    rows = pa.concat_tables([base, *drops]).combine_chunks()
    position = np.arange(rows.num_rows)
    pair = _pairs(rows)
    time = rows[TIMESTAMP].fill_null(-1).to_numpy()
    order = np.lexsort((position, time, pair))
    ordered = pair[order]
    last = order[np.append(ordered[1:] != ordered[:-1], True)] if len(order) else order
    older = np.full(len(last), -1)
    older[pair[: base.num_rows]] = position[: base.num_rows]
    known = older >= 0
    kept, before = rows.take(pa.array(last[known])), rows.take(pa.array(older[known]))
    same = _values_of(kept) == _values_of(before)
    return Fold(rows.take(pa.array(last)), int((~known).sum()), int((~same.all(axis=0)).sum()))


def _pairs(rows: pa.Table) -> NDArray[np.int64]:
    """Number the user-item pairs in sorted order: int64 (rows,)."""
    users, items = codes(rows[USER]), codes(rows[ITEM])
    combined = users * (int(items.max(initial=0)) + 1) + items
    numbers: NDArray[np.int64] = np.unique(combined, return_inverse=True)[1]
    return numbers


def _values_of(rows: pa.Table) -> NDArray[np.float64]:
    """Rating and time, float64 (2, rows), -1e300 for missing ones."""
    columns = (rows[name].cast(pa.float64()).fill_null(-1e300) for name in (RATING, TIMESTAMP))
    return np.stack([np.asarray(column) for column in columns])
