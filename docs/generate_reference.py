"""Write docs/reference/ from the code: commands, configuration keys, DuckDB tables.

Run `make docs`. A test compares the committed pages with what this file generates.
"""

import re
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import duckdb
import typer
import yaml
from pydantic import WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.cli.main import app
from models.config import Experiment, ItemProfiles, Pipeline, Profiles, Section, Split
from models.config.nightly import NightlySplit
from tasks.results.database import schema

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "<!-- Generated from the code by `make docs`. -->\n\n"

TEN_KEYS = (
    "size",
    "dataset.interactions",
    "split.strategy",
    "profiles.provider",
    "profiles.prompt",
    "models",
    "training.arms",
    "transfer.alpha",
    "transfer.schedule",
    "targets.reduction",
)
RESEMBLES: dict[type[Section], tuple[type[Section], str]] = {
    ItemProfiles: (Profiles, "profiles"),
    NightlySplit: (Split, "split"),
}
"""Sections that are described by what differs from another one."""
SAME_KEYS = ("item_embeddings", "item_tap")
"""Fields that hold the same section as the field before them."""
COMMON = {
    "model": "as in runs",
    "arm": "as in runs",
    "metric": "as in metrics",
    "ci_high": "upper end of the interval",
}
"""Columns of several tables that mean the same."""
NAMES: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Any: "any value",
    type(None): "empty",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def pages() -> dict[str, str]:
    """Return every page of the reference: text by file name."""
    return {
        "commands.md": commands(),
        "configuration.md": configuration(),
        "database.md": database(),
    }


def commands() -> str:
    """Return the help of every command, as the terminal shows it."""
    parts = [NOTICE, "# Commands\n"]
    root = typer.main.get_command(app)
    for path, text in _helps(root, root.context_class(root, info_name="llmkt")):
        parts.append(f"\n## {path}\n\n```\n{text}\n```\n")
    return "".join(parts)


def _helps(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    children = getattr(command, "commands", {})
    if not children:
        command.rich_markup_mode = None  # plain text instead of boxes
        yield context.command_path, command.get_help(context)
    for name, child in sorted(children.items()):
        inner = child.context_class(child, info_name=name, parent=context, terminal_width=96)
        yield from _helps(child, inner)


def configuration() -> str:
    """Return every key of a pipeline and of an experiment, by section."""
    rows = {key: row for _, _, keys in _sections("", Pipeline) for key, row in keys.items()}
    parts = [
        NOTICE,
        "# Configuration keys\n\n"
        "A pipeline is one YAML file; `--set KEY=VALUE` goes over it. Unknown keys are errors. "
        "A key marked † changes how the work is done, never its result: changing it "
        "recomputes nothing.\n\n"
        "## Ten keys that matter\n\n",
        _table({key: rows[key] for key in TEN_KEYS}),
    ]
    for root, title in ((Pipeline, "Pipeline"), (Experiment, "Experiment")):
        for prefix, section, keys in _sections("", root):
            heading = f"## {title} file, top level" if not prefix else f"## `{prefix}`"
            intro = " ".join((section.__doc__ or "").split("\n\n")[0].split())
            if section in RESEMBLES:
                intro += f" Keys are those of `{RESEMBLES[section][1]}`; these differ:"
            parts.append(f"\n{heading}\n\n{intro}\n\n{_table(keys)}")
    return "".join(parts)


Row = tuple[str, str, str]
"""Type, default and description."""


def _sections(
    prefix: str, section: type[Section]
) -> Iterator[tuple[str, type[Section], dict[str, Row]]]:
    """Yield a section's dotted name, class and keys, then those of the sections inside it."""
    keys: dict[str, Row] = {}
    inner: list[tuple[str, type[Section]]] = []
    for name, field in section.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        child, optional = _child(field.annotation)
        if _is_inherited(section, name, field):
            continue
        if child is None or optional:
            keys[key] = _row(field)
        if child is not None and name not in SAME_KEYS:
            inner.append((f"{key}.NAME" if get_origin(field.annotation) is dict else key, child))
    yield prefix, section, keys
    for key, child in inner:
        yield from _sections(key, child)


def _is_inherited(section: type[Section], name: str, field: FieldInfo) -> bool:
    if section not in RESEMBLES:
        return False
    like = RESEMBLES[section][0].model_fields.get(name)
    return like is not None and (like.default, like.description) == (
        field.default,
        field.description,
    )


def _child(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section that a field holds, and whether the field itself has a row as well."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    sections = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, Section)]
    return (sections[0], True) if sections else (None, False)


def _row(field: FieldInfo) -> Row:
    extra = field.json_schema_extra
    mark = "" if not isinstance(extra, dict) or extra.get("identity") is not False else " †"
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]
    return (
        ", ".join([_type(Annotated[field.annotation, None, *field.metadata]), *bounds]),
        _default(field),
        (field.description or "") + mark,
    )


def _type(annotation: Any) -> str:
    """A type in the words of a YAML file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        schemas = [extra.json_schema for extra in arguments if isinstance(extra, WithJsonSchema)]
        return _choices(schemas[0]["enum"]) if schemas and schemas[0] else _type(arguments[0])
    if origin is Literal:
        return _choices(arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"{len(arguments)} values: {_type(arguments[0])}"
    if origin in (tuple, list):
        return f"list: {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    return NAMES.get(annotation, "section")


def _choices(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "empty"
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n...\n")
    return f"`{text.strip()}`"


def _table(keys: dict[str, Row]) -> str:
    lines = ["| key | type | default | description |", "|---|---|---|---|"]
    for key, cells in keys.items():
        escaped = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
        lines.append(f"| `{key}` | {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"


def database() -> str:
    """Return the tables and views of results.duckdb: grain, columns, types, meanings."""
    text = schema()
    grains, meanings = _grains(text), _meanings(text)
    parts = [
        NOTICE,
        "# Tables of `results.duckdb`\n\n"
        "`llmkt sql` reads them; [data/README.md](../../data/README.md#how-to-look-inside) shows "
        "how pandas, Polars and Arrow do. A grain says what one row is.\n",
    ]
    with duckdb.connect() as connection:
        connection.execute(text)
        tables = connection.sql("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
        for (name,) in tables:
            parts.append(f"\n## Table `{name}`\n\nGrain: {grains[name]}\n\n")
            parts.append("| column | type | meaning |\n|---|---|---|\n")
            for column, column_type, *_ in connection.sql(f"DESCRIBE {name}").fetchall():
                meaning = meanings[name].get(column) or COMMON.get(column, "")
                parts.append(f"| `{column}` | {column_type} | {meaning} |\n")
        views = connection.sql(
            "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
        ).fetchall()
        for name, sql in views:
            columns = [
                f"`{column}`" for column, *_ in connection.sql(f"DESCRIBE {name}").fetchall()
            ]
            source = re.search(r"FROM (\w+)", sql)
            assert source is not None
            parts.append(f"\n## View `{name}`\n\nGrain: {grains[name]}\n\n")
            parts.append(f"Columns of `{source[1]}`: {', '.join(columns)}.\n")
    return "".join(parts)


def _grains(schema: str) -> dict[str, str]:
    """The comment above each table and view."""
    pattern = (
        r"-- Grain: ((?:[^\n]*\n)(?:-- [^\n]*\n)*)"
        r"CREATE [\w ]*?(?:TABLE|VIEW)(?: IF NOT EXISTS)? (\w+)"
    )
    return {
        name: " ".join(text.replace("\n-- ", " ").split())
        for text, name in re.findall(pattern, schema)
    }


def _meanings(schema: str) -> dict[str, dict[str, str]]:
    """The comments beside each table's columns."""
    found: dict[str, dict[str, str]] = {}
    for name, body in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+) \((.*?)\n\);", schema, re.S):
        columns = re.findall(r"^    (\w+) [^\n]*?-- ([^\n]*(?:\n {5,}--[^\n]*)*)", body, re.M)
        found[name] = {
            column: re.sub(r"\s*\n\s*--\s*", " ", comment) for column, comment in columns
        }
    return found


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
