"""The first rows of a file of unknown format; every guess is noted with its evidence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.dataset import format_detection
from models.dataset.delimited_text import Syntax, names_of
from models.dataset.file_layouts import MOVIELENS
from models.dataset.format_detection import Guess
from models.errors import BadInput
from tasks.dataset.line_blocks import TextFile

Note = Callable[[Guess], None]
_LINES = 200
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def format_of(file: Path, note: Note) -> str:
    """The format of a file: `csv` stands for every text with separated values.

    Raises:
        BadInput: for JSON of another kind than Amazon's.
    """
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    published = {
        name for files in MOVIELENS.values() for name in files if not name.endswith(".csv")
    }
    if file.name in published:
        note(Guess("format", "movielens", f"{file.name} is what MovieLens calls it"))
        return "movielens"
    if name.endswith((".parquet", ".pq")):
        note(Guess("format", "parquet", "by its name"))
        return "parquet"
    if name.endswith((".json", ".jsonl")):
        first = next(iter(TextFile(file, file.name).lines()), (1, [""]))[1][0]
        if re.search(r"[\"'](asin|parent_asin)[\"']", str(first)):
            note(Guess("format", "amazon", "its first line is JSON with asin"))
            return "amazon"
        raise BadInput(f"{file} is JSON, but not of Amazon Reviews; convert it to CSV or Parquet")
    return "csv"


def sample(
    role: str, file: Path, settings: dict[str, Any], note: Note
) -> tuple[list[str], list[list[str]]]:
    """The columns' names and the first rows' values; how text is written goes to `settings`.

    Raises:
        BadInput: if the file cannot be read, is empty, or is written unlike the one before it.
    """
    if settings["format"] == "parquet":
        return _parquet_sample(role, file)
    encoding = _encoding(file)
    note(encoding)
    lines = _first_lines(file, str(encoding.value))
    if not lines:
        raise BadInput(f"{role}: {file} is empty")
    mark = format_detection.delimiter(lines)
    note(mark)
    quoted = any('"' in line for line in lines) and len(str(mark.value)) == 1
    quoting = "double" if quoted else "none"
    note(Guess("quoting", quoting, f"{'' if quoted else 'no '}quotes in the first lines"))
    syntax = Syntax(str(mark.value), quoted)
    cells = [names_of(line, syntax, file.name) for line in lines]
    rows = [row for row in cells[1:] if len(row) == len(cells[0])]
    header = format_detection.has_header(cells[0], rows)
    note(header)
    named = header.value == "true"
    written = {"encoding": encoding.value, "delimiter": mark.value, "quoting": quoting}
    for key, value in {**written, "header": named}.items():
        if settings.setdefault(key, value) != value:
            settings[key] = _reconciled(key, settings[key], value, file)
    if named:
        return [name.split(":")[0] for name in cells[0]], rows
    return [str(n + 1) for n in range(len(cells[0]))], [cells[0], *rows]


def _first_lines(file: Path, encoding: str) -> list[str]:
    """The first line, and those after it that are records of their own."""
    block = next(iter(TextFile(file, file.name, encoding).lines()), (1, pa.array([""])))[1]
    lines = [line for line in map(str, block[:_LINES]) if line.strip()]
    whole = [line for line in lines[1:] if line.count('"') % 2 == 0 and not _CONTROL.search(line)]
    return lines[:1] + whole


def _parquet_sample(role: str, file: Path) -> tuple[list[str], list[list[str]]]:
    try:
        source = pq.ParquetFile(file)
        batch = next(source.iter_batches(_LINES), None)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{role}: {file} cannot be read as Parquet: {error}") from error
    rows = batch.to_pylist() if batch is not None else []
    return source.schema_arrow.names, [[_cell(value) for value in row.values()] for row in rows]


def _reconciled(key: str, before: Any, now: Any, file: Path) -> Any:
    """One setting for both files, where there is one that suits both."""
    if key == "quoting":
        return "double"
    if key == "encoding":
        return "latin-1" if "latin-1" in (before, now) else now
    raise BadInput(
        f"items: {file} has {key} {now!r}, but the interactions have {before!r}; make them alike"
    )


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(str, value))
    return "" if value is None else str(value)


def _encoding(file: Path) -> Guess:
    """UTF-8 if the whole file is, UTF-16 if it begins so, else Latin-1."""
    if file.suffix not in (".gz", ".bz2", ".xz"):
        with file.open("rb") as stream:
            if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                return Guess("encoding", "utf-16", "the file begins with its byte order mark")
    try:
        for _ in TextFile(file, file.name).lines():
            pass
    except BadInput as error:
        if "it is not utf-8" not in str(error):
            raise
        where = str(error).partition(":")[0]
        return Guess("encoding", "latin-1", f"{where} is not UTF-8")
    return Guess("encoding", "utf-8", "the whole file is")
