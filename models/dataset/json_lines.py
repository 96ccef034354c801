"""Read JSON lines, one object a line, and lists that stand as text in a cell."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from models.dataset.delimited_text import Dialect, Source, records
from models.dataset.record_blocks import REFUSED, SHOWN, Block, require_columns
from models.errors import BadInput

LIST = r"^\s*\[.*\]\s*$"
"""What a list in a cell looks like."""
MARK = "\x1f"
"""Stands before and between the genres of a list, so that these may hold any other mark."""
_NAMES = ("name", "title", "label", "genre", "value")
_NO_OBJECT = "it is not a JSON object"


def read(
    source: Source, dialect: Dialect, file: str, wanted: Sequence[str], key: str = ""
) -> Iterator[Block]:
    """Read fields of JSON objects as text; see `models.dataset.delimited_text.read`.

    Lists become text as `as_text` writes them. A field that a line lacks is empty.

    Raises:
        BadInput: for a file that is no JSON lines, and one that lacks a field in all of its first
            lines.
    """
    checked = False
    for batch in records(source, dialect, file):
        lines = batch["line"].to_pylist()
        objects = [parsed(line) for line in lines]
        if not checked:
            require_columns(names(objects, file), wanted, file, key)
            checked = True
        good = [n for n, found in enumerate(objects) if found is not None]
        bad = [n for n, found in enumerate(objects) if found is None]
        kept = batch.take(pa.array(good, pa.int64()))
        columns = {
            name: pa.array([as_text((objects[n] or {}).get(name)) for n in good], pa.large_string())
            for name in wanted
        }
        refused = [batch["row"].take(pa.array(bad, pa.int64()))]
        refused += [pa.array([lines[n][:SHOWN] for n in bad], pa.large_string())]
        reasons = pa.array([_NO_OBJECT] * len(bad), pa.string())
        yield Block(
            kept["row"],
            kept["line"],
            pa.table(columns),
            pa.table([*refused, reasons], schema=REFUSED),
        )


def sample(source: Source, dialect: Dialect, file: str) -> tuple[list[str], list[list[str]]]:
    """Read the fields' names and the first block's values; BadInput if it has no JSON objects."""
    first = next(records(source, dialect, file), None)
    objects = [parsed(line) for line in first["line"].to_pylist()] if first is not None else []
    found = names(objects, file)
    return found, [[as_text(one.get(name)) for name in found] for one in objects if one]


def names(objects: Sequence[dict[str, Any] | None], file: str) -> list[str]:
    """List the fields of objects in the order in which they appear; refuse a file without any."""
    found = list(dict.fromkeys(name for one in objects if one for name in one))
    if not found:
        raise BadInput(
            f"{file}: it is not JSON lines. Write one object a line; `jq -c '.[]'` does so for an "
            "array."
        )
    return found


def parsed(line: str) -> dict[str, Any] | None:
    """Read a JSON object; None for anything else."""
    try:
        found = json.loads(as_json(line))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def as_json(line: str) -> str:
    """Write a Python literal, as Amazon's metadata of 2014 are, as JSON; leave all else."""
    if not line.startswith("{'"):
        return line
    try:
        return json.dumps(ast.literal_eval(line), ensure_ascii=False, default=str)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return line


def as_text(value: Any) -> str:
    """Write a JSON value as a text file would have it; lists as JSON, which `values` reads."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def values(text: str) -> list[str]:
    """Read the entries of a list as Python, JSON or NumPy writes it; of objects their names."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
    if not isinstance(found, list) or (len(found) == 1 and "' '" in text):
        quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
        inner = text.strip()[1:-1]
        found = [one or other for one, other in quoted] or inner.split(",")
    return [entry for entry in map(_entry, found) if entry]


def _entry(value: Any) -> str:
    if isinstance(value, dict):
        # Without a name, a word says more than a number, which is mostly an id.
        texts = [one for one in value.values() if isinstance(one, str) and not one.isdecimal()]
        named = [value[name] for name in _NAMES if isinstance(value.get(name), str)]
        value = next(iter(named or texts), "")
    return " ".join(as_text(value).replace(MARK, " ").split())
