"""The first rows of a file of unknown format, and how it is written; every guess with evidence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.dataset.column_detection import Guess
from models.dataset.delimited_text import Dialect, detect, records
from models.dataset.file_layouts import MOVIELENS
from models.errors import BadInput
from tasks.storage.text_files import text_source

_ROWS = 200


@dataclass(frozen=True)
class Sample:
    """Names of columns, the first rows' values, and the dialect (None for Parquet)."""

    names: list[str]
    rows: list[list[str]]
    dialect: Dialect | None
    guesses: list[Guess]


def format_of(file: Path) -> Guess:
    """Guess the format of a file: `csv` stands for every delimited text.

    Raises:
        BadInput: for JSON of another kind than Amazon's.
    """
    name = re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower())
    published = {known for files in MOVIELENS.values() for known in files}
    if file.name in published and not name.endswith(".csv"):
        return Guess("format", "movielens", f"{file.name} is what MovieLens calls it")
    if name.endswith((".parquet", ".pq")):
        return Guess("format", "parquet", "by its name")
    if name.endswith((".json", ".jsonl")):
        first = next(records(text_source(file, file.name), Dialect(quoted=False), file.name), None)
        if first and re.search(r"[\"'](asin|parent_asin)[\"']", first["line"][0].as_py()):
            return Guess("format", "amazon", "its first line is JSON with asin")
        raise BadInput(f"{file}: JSON, but not of Amazon Reviews. Convert it to CSV or Parquet.")
    return Guess("format", "csv", "no other format has such a name")


def sample(file: Path, kind: str) -> Sample:
    """Read the first rows of a file of kind `csv` or `parquet`.

    Raises:
        BadInput: if the file cannot be read or is empty.
    """
    if kind == "parquet":
        return _parquet_sample(file)
    dialect, rows, guesses = detect(text_source(file, file.name), file.name)
    return Sample(list(dialect.names), rows, dialect, guesses)


def _parquet_sample(file: Path) -> Sample:
    try:
        source = pq.ParquetFile(file)
        batch = next(source.iter_batches(_ROWS), None)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{file}: it cannot be read as Parquet ({error}). Write it again."
        ) from error
    rows = batch.to_pylist() if batch is not None else []
    values = [[_cell(value) for value in row.values()] for row in rows]
    return Sample(source.schema_arrow.names, values, None, [])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(map(str, value))
    return "" if value is None else str(value)
