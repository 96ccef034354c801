"""Files of any format into a scratch database: what can be read, and what cannot, with reasons."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from models.config import Dataset, Role
from models.dataset.delimited_text import LINE, ROW
from models.dataset.file_layouts import Layout, layout
from models.schemas import GENRES, ITEM, RATING, TIMESTAMP, TITLE, USER, YEAR
from tasks.dataset.column_blocks import blocks, has_times
from tasks.dataset.line_blocks import TextFile
from tasks.dataset.scratch_tables import execute, set_variables
from tasks.dataset.source_files import ATOMIC, of_role
from tasks.storage.artifacts import Handle

if TYPE_CHECKING:
    import duckdb

_CONTROL = r"[\x00-\x1f\x7f]"
_NUMBER = r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?"
_YEAR_AT_END = r"\s*\(([0-9]{4})(?:[-–][0-9]{0,4}\s*)?\)\s*$"
_WANTED: dict[Role, tuple[str, ...]] = {
    "interactions": (USER, ITEM, RATING, TIMESTAMP),
    "items": (ITEM, TITLE, YEAR, GENRES),
}


def read(connection: "duckdb.DuckDBPyConnection", config: Dataset, raw: dict[str, Handle]) -> None:
    """Read interactions and items into the scratch tables of tasks/dataset/sql/scratch_tables.sql.

    Raises:
        BadInput: for a file of which no row can be trusted: wrong columns, encoding or quotes.
    """
    set_variables(
        connection,
        control=_CONTROL,
        number=_NUMBER,
        year_at_end=_YEAR_AT_END,
        unit="s" if config.kind == "amazon" else config.timestamp_unit,
    )
    for role in _WANTED:
        found = of_role(raw, role)
        if found is not None:
            _read_role(connection, config, role, *found)


def by_role(raw: dict[str, Handle]) -> dict[str, Handle]:
    """Atomic files by the roles that those of other formats have."""
    return {ATOMIC.get(key, key): handle for key, handle in raw.items()}


def file_name(config: Dataset, role: Role) -> str:
    """What to call a role's file in messages."""
    if config.kind == "atomic":
        return (
            f"{config.name}.{ {'interactions': 'inter', 'items': 'item', 'users': 'user'}[role] }"
        )
    return getattr(config, role) or f"the {role} of {config.path}"


def _read_role(
    connection: "duckdb.DuckDBPyConnection", config: Dataset, role: Role, tag: str, handle: Handle
) -> None:
    file, path = file_name(config, role), handle.verify()
    how = layout(config, role, tag)
    set_variables(
        connection,
        genre_separator=how.genre_separator,
        year_from_title=how.year_from_title,
        has_timestamp=config.kind == "amazon" or TIMESTAMP in how.columns,
        text=[f"$.{name}" for name in config.columns.text],
    )
    if config.kind == "parquet" and has_times(path, how):
        set_variables(connection, unit="iso")  # as `as_text` writes them
    judge = "validate_interactions" if role == "interactions" else "validate_items"
    if config.kind == "amazon":
        _read_objects(connection, TextFile(path, file, config.encoding), role, judge)
        return
    for block, refused in _blocks(path, file, how, role):
        connection.register("refused_rows", refused)
        connection.execute("INSERT INTO quarantine SELECT $1, * FROM refused_rows", [role])
        connection.register("block", block)
        execute(connection, judge)


def _read_objects(
    connection: "duckdb.DuckDBPyConnection", text: TextFile, role: Role, judge: str
) -> None:
    """Read a file with one JSON object a line."""
    set_variables(connection, genre_separator="|", year_from_title=False)
    fields = "amazon_reviews" if role == "interactions" else "amazon_products"
    for lines in text.whole_lines():
        connection.register("lines", _as_json(lines) if role == "items" else lines)
        execute(connection, "parse_json_lines")
        connection.execute("INSERT INTO quarantine SELECT $1, * FROM refused", [role])
        execute(connection, fields)
        execute(connection, judge)


def _as_json(lines: pa.Table) -> pa.Table:
    """Metadata of 2014 are Python literals, which nothing but Python reads: row by row."""
    text = lines[LINE]
    if not pc.any(pc.starts_with(text, "{'")).as_py():
        return lines
    return pa.table({ROW: lines[ROW], LINE: [_literal(line) for line in text.to_pylist()]})


def _literal(line: str) -> str:
    if not line.startswith("{'"):
        return line
    try:
        return json.dumps(ast.literal_eval(line), ensure_ascii=False, default=str)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return line


def _blocks(path: Path, file: str, how: Layout, role: Role) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Blocks of a role's columns as text, with `row`; and what could not be divided."""
    for table, refused in blocks(path, file, how):
        yield _renamed(table, how, role), refused


def _renamed(table: pa.Table, how: Layout, role: Role) -> pa.Table:
    """The columns that a role has, under our names, absent ones null."""
    n = table.num_rows
    columns = {ROW: table[ROW]}
    for name in _WANTED[role]:
        source = how.columns.get(name)
        columns[name] = table[source] if source else pa.nulls(n, pa.large_string())
    if how.flags:
        hits = [pc.if_else(pc.equal(table[flag], "1"), flag, None) for flag in how.flags]
        columns[GENRES] = _joined(hits, "|")
    if how.text:
        filled = [
            pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
            for column in (columns[TITLE], *(table[name] for name in how.text))
        ]
        columns[TITLE] = _joined(filled, " – ")
    return pa.table(columns)


def _joined(columns: list[pa.ChunkedArray], separator: str) -> pa.ChunkedArray:
    texts = [column.cast(pa.large_string()) for column in columns]
    glue = pa.scalar(separator, pa.large_string())
    return pc.binary_join_element_wise(*texts, glue, null_handling="skip")
