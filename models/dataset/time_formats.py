"""Guess how times are written: numbers of a unit, ISO 8601, or a format of strptime."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product

_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?)?")
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_MOSTLY = 0.9
_PLAUSIBLE = (datetime(1985, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
_DATES = (
    # Where both fit, the month comes first between slashes, the day between dots and dashes.
    "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%Y", "%d.%m.%y", "%d-%m-%Y", "%m-%d-%Y",
    "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y",
    "%d-%b-%y", "%b %d %Y", "%m %d, %Y",
)  # fmt: skip
_CLOCKS = ("", "%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
_DIGITS = {"%Y%m%d": 8, "%Y%m%d%H%M%S": 14}
_WHOLE = (
    "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %I:%M:%S %p",
)  # fmt: skip
_SWAPPED = {"%m": "%d", "%d": "%m"}


def time_unit(values: Sequence[str]) -> tuple[str | None, str]:
    """Guess `timestamp_unit` of values, none empty, with evidence; None if no format fits most."""
    shapes = Counter(map(_shape, values))
    shape, n_usual = shapes.most_common(1)[0] if shapes else ("", 0)
    usual = [value.strip() for value in values if _shape(value) == shape]
    guess = next(_fitting(usual), None) if n_usual >= _MOSTLY * len(values) and usual else None
    if guess is not None:
        return guess, _evidence(guess, usual)
    odd = next((value for value in values if _shape(value) != shape), "")
    beside = f" beside {odd}" if odd else ""
    return None, f"no known format of times fits {usual[0] if usual else 'no values'}{beside}"


def _shape(value: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value.strip()))


def looks_like_times(values: Sequence[str]) -> bool:
    """Whether every value is a time for certain: text in a known format, or a recent number."""
    texts = [value.strip() for value in values]
    unit = next(_fitting(texts), None) if texts else None
    if unit in _UNITS:
        return all(float(text) > 1e8 for text in texts)
    return unit is not None


def is_number(value: str) -> bool:
    """Whether a value is a decimal number, with a dot."""
    return bool(_NUMBER.fullmatch(value.strip()))


def _fitting(texts: list[str]) -> Iterator[str]:
    """What fits all texts, the likeliest first."""
    if all(map(is_number, texts)):
        yield from (form for form in _DIGITS if all(_fits(text, form) for text in texts))
        middle = sorted(map(float, texts))[len(texts) // 2]
        for unit, per_second in _UNITS.items():
            if 0 <= middle / per_second < _PLAUSIBLE[1].timestamp():
                yield unit
                return
        return
    if all(map(_is_instant, texts)):
        yield "iso"
        return
    joints = [f"{date}{gap}{clock}" for date, gap, clock in product(_DATES, (" ", ", "), _CLOCKS)]
    forms = dict.fromkeys(form.rstrip(", ") for form in joints)
    yield from (
        form
        for form in (*forms, *_WHOLE)
        if _fits(texts[0], form) and all(_fits(text, form) for text in texts)
    )


def _fits(text: str, form: str) -> bool:
    if form in _DIGITS and len(text) != _DIGITS[form]:
        return False
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        return False
    return _PLAUSIBLE[0] <= moment.replace(tzinfo=moment.tzinfo or UTC) < _PLAUSIBLE[1]


def _is_instant(text: str) -> bool:
    if not _ISO.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def _evidence(guess: str, texts: list[str]) -> str:
    if guess in _UNITS:
        moment = float(sorted(texts, key=float)[len(texts) // 2]) / _UNITS[guess]
        year = datetime.fromtimestamp(moment, UTC).year
        order = "; an order rather than times" if year < _PLAUSIBLE[0].year else ""
        return f"{texts[0]} is then in {year}{order}"
    if guess == "iso":
        return f"{texts[0]} is ISO 8601"
    other = re.sub("%[md]", lambda part: _SWAPPED[part.group()], guess)
    if guess[:2] in _SWAPPED and all(_fits(text, other) for text in texts):
        return f"{texts[0]}; {other} fits as well, correct it if the day comes first"
    return f"{texts[0]} and all others fit"
