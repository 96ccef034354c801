"""Guess how a file of delimited text is written, from all of it, with the evidence."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.dataset.column_detection import Guess, header_guess
from models.dataset.delimited_text import (
    RECBOLE_TYPE,
    Dialect,
    Source,
    column_names,
    read,
    records,
)
from models.dataset.text_encoding import detect_encoding
from models.errors import BadInput

_DELIMITERS = ("\t", "::", ",", ";", "|")
_RARE_IN_TEXT = ("\t", "::")
_FIRST = 200
_ROWS_PER_BLOCK = 1000
_NAMES = {"\t": "tab", " ": "space"}


@dataclass(frozen=True)
class Detected:
    """How a file is written, and a sample of its values.

    Attributes:
        dialect: with the columns' names, or their numbers where the file names none.
        rows: values of records from all over the file, without the header.
        guesses: one a setting, with the evidence.
        refused: how many records the dialect refuses.
    """

    dialect: Dialect
    rows: list[list[str]]
    guesses: list[Guess]
    refused: int


@dataclass(frozen=True)
class _Tried:
    dialect: Dialect
    refused: int
    first: list[str]
    rows: list[list[str]]
    fault: str


_WHOLE_FILE = 1 << 62
"""Refused records where it is not known where records end."""


def detect(source: Source, file: str) -> Detected:
    """Try delimiters and quotings on the whole file; the one that refuses fewest records wins.

    Raises:
        BadInput: if the file is empty or cannot be decoded.
    """
    encoding, seen = detect_encoding(source, file)
    tried: list[_Tried] = []
    for dialect in _candidates(source, encoding, file):
        tried.append(_tried(source, dialect, file))
        if not tried[-1].refused:
            break
    best = min(tried, key=lambda one: one.refused)
    header = header_guess(best.first, best.rows)
    is_named = header.value == "true"
    names = [RECBOLE_TYPE.sub("", name.strip()) for name in best.first]
    names = names if is_named else [str(number + 1) for number in range(len(names))]
    found = replace(best.dialect, header=is_named, names=tuple(names))
    rows = best.rows if is_named else [best.first, *best.rows]
    guesses = [Guess("encoding", encoding, seen), *_evidence(tried, best), header]
    return Detected(found, rows, guesses, best.refused)


def quoting_of(dialect: Dialect) -> str:
    """Name a dialect's quoting as the configuration does."""
    return ("backslash" if dialect.escaped else "double") if dialect.quoted else "none"


def ranked_delimiters(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Rank what may separate values, with evidence: what is in every line, equally often in most.

    Tabs and `::` hardly ever stand in a text, and so come before what does.
    """
    found = []
    for candidate in _DELIMITERS:
        counts = Counter(re.sub('"[^"]*"', "", line).count(candidate) for line in lines)
        times, n_lines = counts.most_common(1)[0]
        share = n_lines / len(lines) if times else 0.0
        if any(candidate in line for line in lines):
            rank = (share > 0.5, candidate in _RARE_IN_TEXT, share, times)
            shown = _NAMES.get(candidate, candidate)
            evidence = f"{shown}: {times} a line in {share:.0%} of the first {len(lines)} lines"
            found.append((rank, candidate, evidence))
    found.sort(key=lambda one: one[0], reverse=True)
    if found:
        return [(candidate, evidence) for _, candidate, evidence in found]
    if all(" " in line.strip() for line in lines):
        return [(" ", "space: no other is in the first lines")]
    return [(",", "none of , tab ; :: | is in the first lines")]


def _candidates(source: Source, encoding: str, file: str) -> Iterator[Dialect]:
    """Dialects that divide the first record into several values; if none does, with commas."""
    plain = Dialect(quoted=False, encoding=encoding, header=False)
    lines = next(iter(records(source, plain, file)), None)
    if lines is None or not lines.num_rows:
        raise BadInput(f"{file}: the file is empty. Write one record a line.")
    first = lines["line"][:_FIRST].to_pylist()
    has_quotes = any(b'"' in block for block in source())
    none_fits = True
    first = [line for line in first if line.strip()]
    for mark, _ in ranked_delimiters(first):
        written = (True, True, False) if has_quotes and len(mark) == 1 else (False,)
        for quoted, escaped in zip(written, (False, True, False), strict=False):
            if escaped and not any(b"\\" in block for block in source()):
                continue
            dialect = replace(plain, delimiter=mark, quoted=quoted, escaped=escaped)
            if len(column_names(source, dialect, file)) > 1:
                none_fits = False
                yield dialect
    if (
        none_fits
        and len(first) > 1
        and any(all(mark in line for line in first[1:]) for mark in _DELIMITERS)
    ):
        raise BadInput(
            f"{file}, row {lines['row'][0]}: the first line is not divided like the others "
            f"({first[0][:60]}). Remove what stands above the header."
        )
    if none_fits:
        yield plain


def _tried(source: Source, dialect: Dialect, file: str) -> _Tried:
    """Read a file as a dialect: how many records it refuses, and a sample of values."""
    refused, rows, fault = 0, list[list[str]](), ""
    names = column_names(source, dialect, file)
    try:
        for block in read(source, dialect, file, names):
            values = block.values
            if not dialect.quoted:
                refused += int(pc.sum(_in_quotes(values)).as_py() or 0)
            refused += block.refused.num_rows
            if block.refused.num_rows and not fault:
                one = block.refused.slice(0, 1).to_pylist()[0]
                fault = f"row {one['row']}: {one['reason']}"
            spread = np.unique(np.linspace(0, len(values) - 1, _ROWS_PER_BLOCK).astype(int))
            if len(values):
                columns = values.take(pa.array(spread)).to_pydict().values()
                rows += map(list, zip(*columns, strict=True))
    except BadInput as error:
        refused, fault = _WHOLE_FILE, str(error)
    rows = rows or [column_names(source, replace(dialect, header=True), file)]
    return _Tried(dialect, refused, rows[0], rows[1:], fault)


def _in_quotes(values: pa.Table) -> pa.ChunkedArray:
    """Which records have a value in quotes; those are no part of it, then. Boolean (n,)."""
    found = pa.chunked_array([pa.array(np.zeros(len(values), bool))])
    for column in values.columns:
        found = pc.or_(found, pc.match_substring_regex(column, '^".*"$'))
    return found


def _evidence(tried: list[_Tried], best: _Tried) -> list[Guess]:
    mark, quoting = best.dialect.delimiter, quoting_of(best.dialect)
    others = [one for one in tried if one is not best]
    counts = [
        f"{quoting_of(one.dialect)} with {_NAMES.get(one.dialect.delimiter, one.dialect.delimiter)}"
        f" refuses {'the file' if one.refused == _WHOLE_FILE else one.refused} ({one.fault})"
        for one in islice(others, 3)
    ]
    end = f"; it refuses {best.refused} records, {best.fault}" if best.refused else ""
    end = f"; {best.fault}" if best.refused == _WHOLE_FILE else end
    why = "; ".join(counts) or ("the whole file fits" if best.dialect.quoted else "no quotes in it")
    shown = f"{_NAMES.get(mark, mark)}: {len(best.first)} values a record{end}"
    return [Guess("delimiter", mark, shown), Guess("quoting", quoting, why)]
