"""What others wrote, as text: one function per medium, which escapes what the medium would obey.

Titles, ids, answers of endpoints and values of a database come from strangers.
"""

import json
import math
import re
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that turn the direction, halves of characters."""
_FORMULA = re.compile(r"[\s\ufeff]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20|%]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def for_terminal(text: str) -> str:
    """Replace what a terminal would obey, such as escape sequences, by a sign for it."""
    return _UNSEEN.sub("\ufffd", text)


def for_csv(value: Any) -> Any:
    """Keep a spreadsheet from computing a text: an apostrophe in front marks it as text.

    Example:
        >>> for_csv("=A1"), for_csv(-0.5), for_csv("-0.5")
        ("'=A1", -0.5, '-0.5')
    """
    if not isinstance(value, str):
        return value if isinstance(value, int | float | None) else for_csv(str(value))
    text = for_terminal(value.replace("\r", " "))
    return f"'{text}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else text


def for_markdown(text: str) -> str:
    """Make a text one cell of a table: no other cells, no markup, no links."""
    shown = " ".join(for_terminal(text).split())
    shown = shown.replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")
    return shown.replace("<", "&lt;").replace("](", "]\\(")


def as_json(value: Any, **options: Any) -> str:
    """Write JSON every reader takes: null for numbers that are not finite, text for objects."""
    text = json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False, **options)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
