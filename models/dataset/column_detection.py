"""Guesses about the columns of a file, from its first rows; each with its evidence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        "user", "userid", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid",
        "listenerid", "readerid", "sessionid", "playerid",
    ),
    "item": (
        "item", "itemid", "iid", "movieid", "movie", "filmid", "asin", "parentasin", "productid",
        "product", "bookid", "isbn", "albumid", "trackid", "songid", "artistid", "gameid",
        "businessid", "articleid", "newsid", "recipeid", "sku", "id",
    ),
    "rating": ("rating", "ratings", "score", "stars", "overall", "preference", "value", "weight"),
    "timestamp": (
        "timestamp", "time", "ts", "date", "datetime", "unixreviewtime", "unixtime", "ratedat",
        "createdat", "created", "eventtime", "reviewdate",
    ),
    "title": ("title", "movietitle", "booktitle", "productname", "name", "itemname", "trackname"),
    "year": ("year", "releaseyear", "yearofpublication", "releasedate", "published"),
    "genres": ("genres", "genre", "categories", "category", "class", "tags", "style"),
    "text": ("artist", "artistname", "author", "bookauthor", "authors", "brand", "director"),
}  # fmt: skip
_KINDS = {
    "music": r"album|track|song|artist|vinyl|listen|music",
    "movies": r"movie|film|imdb|tmdb",
}
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
_YEAR_AT_END = re.compile(r"\(\d{4}(?:[-–]\d{0,4})?\)\s*$")


@dataclass(frozen=True)
class Guess:
    """A setting and the evidence for it; `value` None: there is no such column."""

    setting: str
    value: str | None
    evidence: str


def header_guess(first: Sequence[str], rows: Sequence[Sequence[str]]) -> Guess:
    """Guess whether the first line names columns: it has no number where all rows have one."""
    numeric = [all(_is_number(row[n]) for row in rows) and bool(rows) for n in range(len(first))]
    named = [name for name, numbers in zip(first, numeric, strict=True) if numbers]
    named = [name for name in named if not _is_number(name)]
    known = [name for name in first if any(_plain(name) in names for names in _NAMES.values())]
    if known or named:
        return Guess("header", "true", f"the first line has {', '.join((known or named)[:4])}")
    return Guess("header", "false", f"the first line holds values: {', '.join(first[:4])}")


def columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str]
) -> list[Guess]:
    """Guess which column is which: by its name, otherwise by its values.

    Args:
        names: of the columns; numbers from 1 where the file does not name them.
        rows: the first rows' values.
        wanted: of `user`, `item`, `rating`, `timestamp`, `title`, `year`, `genres` and `text`.
    """
    guesses: dict[str, Guess] = {}
    free = list(names)
    for role in wanted:
        matches = (name for known in _NAMES[role] for name in free if _plain(name) == known)
        match = next(matches, None)
        if match is not None:
            guesses[role] = Guess(f"columns.{role}", match, "by its name")
            free.remove(match)
    values = {name: [row[n] for row in rows if row[n]] for n, name in enumerate(names)}
    for role in ("timestamp", "rating", "user", "item"):
        if role in wanted and role not in guesses:
            by_content = _by_content(role, free, values)
            if by_content is not None:
                guesses[role] = by_content
                free.remove(str(by_content.value))
    nothing = "no column is called so or looks like it"
    return [guesses.get(role) or Guess(f"columns.{role}", None, nothing) for role in wanted]


def _by_content(role: str, free: list[str], values: dict[str, list[str]]) -> Guess | None:
    if role in ("user", "item"):
        evidence = "the first column that is nothing else"
    # Ratings come after the two ids.
    for name in reversed(free) if role == "rating" else free:
        if role == "timestamp":
            evidence = _time_evidence(values[name])
        elif role == "rating":
            evidence = _rating_evidence(values[name]) if len(free) > 2 else ""
        if evidence:
            return Guess(f"columns.{role}", name, evidence)
    return None


def _time_evidence(values: list[str]) -> str:
    """Why values may be times; empty if they may not."""
    if not values:
        return ""
    if all(_is_number(value) and float(value) > 1e8 for value in values):
        return f"numbers like {values[0]}, as times are"
    return f"dates or times like {values[0]}" if all(map(_is_instant, values)) else ""


def _rating_evidence(values: list[str]) -> str:
    """Why values may be ratings; empty if they may not."""
    if not values or not all(map(_is_number, values)):
        return ""
    numbers = {float(value) for value in values}
    if len(numbers) > 21 or max(map(abs, numbers)) > 100:
        return ""
    return f"{len(numbers)} different numbers from {min(numbers):g} to {max(numbers):g}"


def unit(values: Sequence[str]) -> Guess:
    """Guess the unit of times: seconds, milliseconds, or ISO dates and times."""
    numbers = sorted(float(value) for value in values if _is_number(value))
    if not numbers:
        return Guess("timestamp_unit", "iso", f"it is text: {values[0] if values else ''}")
    middle = numbers[len(numbers) // 2]
    is_ms = middle >= 1e11
    days = datetime.fromtimestamp(min(middle / (1000 if is_ms else 1), 4e9)).astimezone().year
    return Guess("timestamp_unit", "ms" if is_ms else "s", f"{middle:.0f} is then in {days}")


def genre_separator(values: Sequence[str]) -> Guess:
    """Guess the separator of genres."""
    counts = {mark: sum(mark in value for value in values) for mark in ("|", ";", ",", "/")}
    best = max(counts, key=lambda mark: counts[mark])
    if not counts[best]:
        return Guess("genre_separator", "|", "no value seems to hold several")
    return Guess("genre_separator", best, f"in {counts[best]} of {len(values)} values")


def year_from_title(titles: Sequence[str]) -> Guess:
    """Guess whether titles end in a year."""
    n = sum(bool(_YEAR_AT_END.search(title)) for title in titles)
    answer = "true" if n * 2 > len(titles) else "false"
    return Guess("year_from_title", answer, f"{n} of {len(titles)} titles end like (1995)")


def subject(words: Sequence[str]) -> Guess:
    """Guess the kind of items, which decides the prompts: movies, music or anything."""
    text = " ".join(words).lower()
    for kind, pattern in _KINDS.items():
        hit = re.search(pattern, text)
        if hit:
            return Guess("prompts", kind, f"the word {hit.group()} in names of files or columns")
    return Guess("prompts", "generic", "the names of files and columns say nothing of the items")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower())


def _is_number(value: str) -> bool:
    return bool(_NUMBER.fullmatch(value.strip()))


def _is_instant(value: str) -> bool:
    try:
        datetime.fromisoformat(value.strip())
    except ValueError:
        return False
    return True
