"""Files of any format into scratch tables: good rows, and refused rows with reasons."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.config import Dataset, Role
from models.dataset import delimited_text, json_lines
from models.dataset.delimited_text import Dialect, Source
from models.dataset.file_layouts import Layout, layout
from models.dataset.record_blocks import REFUSED, Block, all_records, require_columns
from models.errors import BadInput
from models.schemas import FEATURES, GENRES, ITEM, RATING, TIMESTAMP, TITLE, USER, YEAR
from tasks.dataset.scratch_tables import Connection, execute, set_variables
from tasks.dataset.source_files import source_file
from tasks.storage.artifacts import Handle
from tasks.storage.text_files import text_source

_ROWS_AT_ONCE = 1 << 20
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ID_KINDS = (
    pa.types.is_integer,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
)
_FIELDS: dict[Role, tuple[str, ...]] = {
    "interactions": (USER, ITEM, RATING, TIMESTAMP),
    "items": (ITEM, TITLE, YEAR, GENRES),
}


def read(connection: Connection, config: Dataset, raw: dict[str, Handle]) -> None:
    """Read `raw_files` into the scratch tables; BadInput for a file of which no row is usable."""
    for role in _FIELDS:
        found = source_file(raw, role)
        if found is None:
            continue
        tag, handle = found
        path, file = handle.verify(), file_name(config, role)
        if config.of(role).kind == "amazon":
            set_variables(connection, text=[f"$.{name}" for name in config.columns.text])
            _read_amazon(connection, text_source(path, file), config, role, file)
        else:
            known = layout(config, role, tag)
            read_file(connection, path, file, known, role, config.timestamp_unit, config.decimal)


def read_file(
    connection: Connection,
    path: Path,
    file: str,
    layout: Layout,
    role: Role = "interactions",
    unit: str = "s",
    decimal: str = ".",
) -> None:
    """Read one file of text or Parquet into the scratch tables; for errors see `read`."""
    if layout.dialect is None:
        decimal = "."
        if _has_times(path, layout):
            unit = "iso"  # as `_as_text` writes them
    set_variables(
        connection,
        unit=unit,
        per_second=_PER_SECOND.get(unit),
        decimal=decimal,
        has_timestamp=TIMESTAMP in layout.columns,
        genre_separator=layout.genre_separator,
        year_from_title=layout.year_from_title,
    )
    for block in blocks(path, file, layout, layout.wanted):
        connection.register("refused_rows", block.refused)
        connection.execute("INSERT INTO quarantine SELECT $1, * FROM refused_rows", [role])
        connection.register("block", _fields(block, layout, role))
        execute(connection, f"validate_{role}")


def read_users(
    config: Dataset, raw: dict[str, Handle], fields: tuple[str, ...]
) -> tuple[str, pa.Table]:
    """Read the user file's name, `user_id`, `fields` as text, empty values null, and `features`.

    Raises:
        BadInput: for a missing column, and a row that cannot be read or has no user_id.
    """
    found = source_file(raw, "users")
    assert found is not None, "raw_files refuses fields without a user file"
    file, users = file_name(config, "users"), layout(config, "users", found[0])
    wanted = list(dict.fromkeys((users.columns[USER], *fields, *users.features)))
    if {USER, wanted[0]} & set(fields):
        raise BadInput(f"history.demographics: {wanted[0]} is the user's id. Remove it.")
    found_blocks = blocks(found[1].verify(), file, users, wanted)
    table = all_records(found_blocks, file, wanted, filled=wanted[:1])
    described = pc.split_pattern(_features(table, users, len(table)), json_lines.MARK)
    kept = [table[name] for name in (wanted[0], *fields)]
    return file, pa.table([*kept, described], [USER, *fields, FEATURES])


def file_name(config: Dataset, role: Role) -> str:
    """Name a role's file, for messages."""
    if config.kind == "atomic":
        suffix = {"interactions": "inter", "items": "item", "users": "user"}[role]
        return f"{config.name}.{suffix}"
    return getattr(config, role) or f"the {role} of {config.path}"


def blocks(path: Path, file: str, layout: Layout, wanted: list[str]) -> Iterator[Block]:
    """Read columns of a file of text or Parquet; for errors see `read`."""
    if layout.dialect is None:
        return _parquet(path, file, layout, wanted)
    source = text_source(path, file)
    if layout.json:
        return json_lines.read(source, layout.dialect, file, wanted, layout.key)
    return delimited_text.read(source, layout.dialect, file, wanted, key=layout.key)


# Parquet


def _parquet(path: Path, file: str, layout: Layout, wanted: list[str]) -> Iterator[Block]:
    try:
        source = pq.ParquetFile(path)
        require_columns(source.schema_arrow.names, wanted, file, layout.key)
        first = 1
        for batch in source.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            batch.validate(full=True)
            yield Block(
                pa.array(np.arange(first, first + batch.num_rows)),
                pa.nulls(batch.num_rows, pa.large_string()),
                pa.table({name: _as_text(batch[name], name, layout, file) for name in wanted}),
                REFUSED.empty_table(),
            )
            first += batch.num_rows
    except BadInput:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(
            f"{file}: it cannot be read as Parquet ({reason}). Write it again."
        ) from error


def _has_times(path: Path, layout: Layout) -> bool:
    """Whether a Parquet file's times are times, not numbers or text."""
    try:
        kinds = {field.name: field.type for field in pq.read_schema(path)}
    except (pa.ArrowException, OSError, ValueError):
        return False  # `_parquet` says what is wrong with the file
    return _is_time(kinds.get(layout.columns.get(TIMESTAMP, "")))


def _is_time(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _as_text(column: pa.Array, name: str, layout: Layout, file: str) -> pa.Array:
    """Values as a text file would have them, so that all formats are validated alike."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    is_id = name in (layout.columns.get(USER), layout.columns.get(ITEM))
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and not is_id:
        lists = column.cast(pa.list_(pa.string()))
        return pc.binary_join(lists, layout.genre_separator or " ").cast(pa.large_string())
    if pa.types.is_nested(kind) or (is_id and not any(is_kind(kind) for is_kind in _ID_KINDS)):
        raise BadInput(
            f"{file}: column {name} holds {kind}, not text or whole numbers. Convert it, so that "
            "it is certain how an id is written."
        )
    if _is_time(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False)
        column = pc.strftime(seconds, "%Y-%m-%dT%H:%M:%S")
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    return column.cast(pa.large_string())


# Amazon: one JSON object a line


def _read_amazon(
    connection: Connection, source: Source, config: Dataset, role: Role, file: str
) -> None:
    set_variables(
        connection,
        unit="s",
        per_second=1,
        decimal=".",
        has_timestamp=True,
        genre_separator="|",
        year_from_title=False,
    )
    lines = Dialect(quoted=False, encoding=config.encoding, section="dataset")
    for batch in delimited_text.records(source, lines, file):
        found = _as_json(batch) if role == "items" else batch
        connection.register("lines", pa.Table.from_batches([found]))
        execute(connection, "parse_json_lines")
        connection.execute("INSERT INTO quarantine SELECT $1, * FROM refused", [role])
        execute(connection, "amazon_reviews" if role == "interactions" else "amazon_products")
        execute(connection, f"validate_{role}")


def _as_json(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Metadata of 2014 are Python literals, which nothing but Python reads: row by row."""
    if not pc.any(pc.starts_with(batch["line"], "{'")).as_py():
        return batch
    return batch.set_column(1, "line", pa.array(map(json_lines.as_json, batch["line"].to_pylist())))


# Columns of a role


def _fields(block: Block, layout: Layout, role: Role) -> pa.Table:
    """The columns that a role has, under our names, absent ones null."""
    values, n = block.values, len(block.row)
    fields: dict[str, Any] = {"row": block.row, "line": block.line}
    for name in _FIELDS[role]:
        source = layout.columns.get(name)
        fields[name] = values[source] if source else pa.nulls(n, pa.large_string())
    if layout.flags:
        hits = [pc.if_else(pc.equal(values[flag], "1"), flag, None) for flag in layout.flags]
        fields[GENRES] = _joined(hits, "|", n)
    if role == "items":
        fields[GENRES] = _with_lists(fields[GENRES], json_lines.MARK)
        fields[FEATURES] = _features(values, layout, n)
    if layout.text:
        titles = (fields[TITLE], *(_with_lists(values[name], ", ") for name in layout.text))
        is_blank = [pc.equal(pc.utf8_trim_whitespace(column), "") for column in titles]
        filled = [
            pc.if_else(blank, None, column) for blank, column in zip(is_blank, titles, strict=True)
        ]
        fields[TITLE] = _joined(filled, " – ", n)
    return pa.table(fields)


def _features(values: pa.Table, layout: Layout, n: int) -> Any:
    """What rows say in the columns of features: `column: value` between marks, n texts or nulls."""
    texts = []
    for name in layout.features:
        text = pc.utf8_trim_whitespace(_with_lists(values[name], layout.genre_separator or " "))
        if layout.genre_separator:
            several = rf"(\s*{re.escape(layout.genre_separator)}\s*)+"
            text = pc.replace_substring_regex(text, several, f"{json_lines.MARK}{name}: ")
        named = pc.replace_substring_regex(text, "^", f"{name}: ")
        texts.append(pc.if_else(pc.equal(text, ""), None, named))
    return _joined(texts, json_lines.MARK, n)


def _with_lists(column: Any, mark: str) -> Any:
    """Values with lists as Python or JSON writes them joined by `mark`, genres' own in front."""
    is_list = pc.fill_null(pc.match_substring_regex(column, json_lines.LIST), False)
    if not pc.any(is_list).as_py():
        return column
    front = mark if mark == json_lines.MARK else ""
    texts = zip(column.to_pylist(), is_list.to_pylist(), strict=True)
    lists = [front + mark.join(json_lines.values(text)) if found else text for text, found in texts]
    return pa.array(lists, pa.large_string())


def _joined(columns: list[Any], separator: str, n: int) -> pa.ChunkedArray:
    """Join what n rows have in the columns, null where they have nothing."""
    # Arrow drops a row whose texts are all null: an empty text in front keeps it.
    texts = (text.cast(pa.large_string()) for text in (pa.array([""] * n), *columns))
    glue = pa.scalar(separator, pa.large_string())
    found = pc.binary_join_element_wise(*texts, glue, null_handling="skip")
    found = pc.utf8_slice_codeunits(found, len(separator))
    return pc.if_else(pc.equal(found, ""), None, found)
