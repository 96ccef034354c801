"""Files of separated values and Parquet as blocks of text columns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.dataset.delimited_text import REFUSED, ROW
from models.dataset.file_layouts import UTF8_OR_LATIN1, Layout
from models.errors import BadInput
from models.schemas import ITEM, TIMESTAMP, USER
from tasks.dataset.line_blocks import TextFile

_ROWS_AT_ONCE = 1 << 20


def blocks(path: Path, file: str, how: Layout) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Blocks of a file under its own names."""
    if how.syntax is None:
        tables = _parquet(path, file, how)
        text = None
    else:
        text = TextFile(path, file, _encoding(path, file, how))
        names = _names(text, how)
        _require(how, names, file)
        tables = text.tables(how.syntax, names, how.header)
    for table in tables:
        refused = text.taken_refused() if text else REFUSED.empty_table()
        yield table, refused


def read_columns(path: Path, file: str, how: Layout, fields: tuple[str, ...]) -> pa.Table:
    """`user_id` and other columns of a user file as text, empty values null.

    Raises:
        BadInput: if it lacks one of them, or a row cannot be divided into values.
    """
    columns = {**how.columns, **{field: field for field in fields}}
    wanted = Layout(**{**vars(how), "columns": columns})
    tables = []
    for table, refused in blocks(path, file, wanted):
        if refused.num_rows:
            row, _, reason = refused.slice(0, 1).to_pylist()[0].values()
            raise BadInput(f"{file}, row {row}: {reason}; mend or remove it")
        tables.append(table.select([how.columns[USER], *fields]).rename_columns([USER, *fields]))
    whole = pa.concat_tables(tables)
    empty_as_null = [pc.if_else(pc.equal(column, ""), None, column) for column in whole.columns]
    return pa.table(empty_as_null, whole.column_names)


def has_times(path: Path, how: Layout) -> bool:
    """Whether a Parquet file's times are times, not numbers or text."""
    try:
        kinds = {field.name: field.type for field in pq.read_schema(path)}
    except (pa.ArrowException, OSError):
        return False  # `_parquet` says what is wrong with the file
    kind = kinds.get(how.columns.get(TIMESTAMP, ""))
    return kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def as_text(column: pa.Array, name: str, how: Layout, file: str) -> pa.Array:
    """Values as a text file would have them, so that all formats are judged alike."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lists = column.cast(pa.list_(pa.string()))
        return pc.binary_join(lists, how.genre_separator or " ").cast(pa.large_string())
    is_id = name in (how.columns.get(USER), how.columns.get(ITEM))
    if (is_id and pa.types.is_floating(kind)) or pa.types.is_nested(kind):
        raise BadInput(
            f"{file}: column {name} holds {kind}, not text or whole numbers; convert it, so that "
            "it is certain how an id is written"
        )
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False)
        column = pc.strftime(seconds, "%Y-%m-%dT%H:%M:%S")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    return column.cast(pa.large_string())


def _encoding(path: Path, file: str, how: Layout) -> str:
    if how.encoding != UTF8_OR_LATIN1:
        return how.encoding
    try:
        for _ in TextFile(path, file).lines():
            pass
    except BadInput:
        return "latin-1"
    return "utf-8"


def _names(text: TextFile, how: Layout) -> list[str]:
    assert how.syntax is not None
    if how.names:
        return list(how.names)
    first = text.header(how.syntax)
    if how.header:
        return [name.split(":")[0] for name in first] if _typed(first) else first
    return [str(number + 1) for number in range(len(first))]


def _typed(names: list[str]) -> bool:
    """Whether names carry RecBole's types: `user_id:token`."""
    kinds = ("token", "float", "token_seq", "float_seq")
    return all(name.partition(":")[2] in kinds for name in names)


def _require(how: Layout, names: list[str], file: str) -> None:
    wanted = [*how.columns.values(), *how.text]
    missing = list(dict.fromkeys(name for name in wanted if name not in names))
    if missing:
        has = ", ".join(names)[:300]
        hint = f"; it has {has}"
        for character, word in (
            (";", "a semicolon"),
            ("\t", "a tab"),
            ("|", "|"),
            (",", "a comma"),
        ):
            if len(names) == 1 and character in names[0]:
                hint += f": is its delimiter {word}? Set dataset.delimiter"
                break
        else:
            hint += "; set dataset.columns to its names, or leave out what it lacks"
        raise BadInput(f"{file}: no column {', '.join(missing)}{hint}")
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise BadInput(f"{file}: two columns are called {twice[0]}; rename one")


def _parquet(path: Path, file: str, how: Layout) -> Iterator[pa.Table]:
    try:
        source = pq.ParquetFile(path)
        _require(how, source.schema_arrow.names, file)
        columns = list(dict.fromkeys([*how.columns.values(), *how.text]))
        first = 1
        for batch in source.iter_batches(_ROWS_AT_ONCE, columns=columns):
            rows = pa.array(np.arange(first, first + batch.num_rows))
            text = {name: as_text(batch[name], name, how, file) for name in columns}
            yield pa.table({ROW: rows, **text})
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{file} cannot be read as Parquet ({str(error).partition(chr(10))[0]}); write it again"
        ) from error
