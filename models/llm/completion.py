"""Reading what an endpoint sent back: JSON of any shape, of which nothing is taken for granted."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

MALFORMED = "malformed answer"
MOST_TOKENS = 10_000_000
"""No request has more; a larger count is a mistake, and would overflow sums and budgets."""
LONGEST_WORDS = 300

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")
_TAG = re.compile(r"<(script|style|title)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_MESSAGES = ("message", "msg", "detail", "error", "errors", "description", "status_msg", "reason")
_DEEPEST = 6


class Usage(NamedTuple):
    """What the endpoint counted for an answer; None where it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def parsed(content: bytes) -> Any:
    """Parse JSON; None for anything else, such as HTML or 100,000 brackets."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def usage_of(completion: Any) -> Usage:
    """Read the tokens of a chat completion; counts that cannot be true are None."""
    usage = _mapping(_mapping(completion).get("usage"))
    prompt, written = (_count(usage.get(name)) for name in Usage._fields)
    return Usage(prompt or None, written)  # no prompt has 0 tokens


def _count(value: Any) -> int | None:
    """Take 5, 5.0 or "5"; None for anything that counts no tokens."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and 0 <= number <= MOST_TOKENS else None


def printable(text: str) -> str:
    """Drop what no text has: control characters, lone surrogates, a byte order mark."""
    return _UNPRINTABLE.sub("", text)


def text_of(content: Any) -> str | None:
    """Join the text of a message's content, a text or a list of parts; None if it is neither.

    Parts that are no text, such as a model's reasoning, are left out.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return printable(content)
    if not isinstance(content, list):
        return None
    return "".join(map(_text_of_part, content))


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return printable(part)
    part = _mapping(part)
    text = part.get("text") if part.get("type", "text") in ("text", "output_text") else None
    text = text.get("value") if isinstance(text, dict) else text
    return printable(text) if isinstance(text, str) else ""


def error_in(body: Any) -> dict[str, Any] | None:
    """Find the error that a body holds instead of an answer; None if it holds an answer."""
    body = body[0] if isinstance(body, list) and body else body
    body = _mapping(body)
    if body.get("choices") or body.get("data"):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        return {**body, "message": error}
    if isinstance(error, dict) and error:
        return error
    return body if body.get("object") == "error" else None


def words_of(content: bytes) -> str:
    """Find what an endpoint says of an error, on one line of at most `LONGEST_WORDS`."""
    body = parsed(content)
    if body is None:
        found = _TAG.sub(" ", content[: 1 << 16].decode(errors="replace"))
    else:
        found = ", ".join(_messages(body, 0))
    text = " ".join(printable(found.replace("\n", " ")).split())
    return text if len(text) <= LONGEST_WORDS else text[: LONGEST_WORDS - 1] + "…"


def _messages(value: Any, depth: int) -> Iterator[str]:
    """Yield the texts of an error; of a validation error with the place it concerns."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth < _DEEPEST:
        for item in value[:3]:
            yield from _messages(item, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        key = next((key for key in _MESSAGES if value.get(key)), None)
        loc = value.get("loc")
        place = f"{'.'.join(map(str, loc[:5]))}: " if isinstance(loc, list) else ""
        if key:
            yield from (place + text for text in _messages(value[key], depth + 1))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
