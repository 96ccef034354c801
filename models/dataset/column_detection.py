"""What a file of interactions or items probably holds, from its first lines; each with evidence."""

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
    """A setting and what speaks for it; `value` None: there is no such column."""

    setting: str
    value: str | None
    evidence: str


def header_guess(first: Sequence[str], rows: Sequence[Sequence[str]]) -> Guess:
    """Whether the first line names columns: it has no number where others have only numbers."""
    numeric = [all(_is_number(row[n]) for row in rows) and bool(rows) for n in range(len(first))]
    named = [n for n, is_numeric in enumerate(numeric) if is_numeric and not _is_number(first[n])]
    known = [name for name in first if any(_plain(name) in names for names in _NAMES.values())]
    if known or named:
        evidence = f"the first line has {', '.join(known[:4] or [first[n] for n in named[:4]])}"
        return Guess("header", "true", evidence)
    return Guess("header", "false", f"the first line holds values: {', '.join(first[:4])}")


def columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str]
) -> list[Guess]:
    """Which column is which: by its name, otherwise by what stands in it.

    Args:
        names: of the columns; numbers from 1 where the file does not name them.
        rows: the first rows' values.
        wanted: of `user`, `item`, `rating`, `timestamp`, `title`, `year`, `genres` and `text`.
    """
    taken: dict[str, Guess] = {}
    free = list(names)
    for role in wanted:
        match = next(
            (name for known in _NAMES[role] for name in free if _plain(name) == known), None
        )
        if match is not None:
            taken[role] = Guess(f"columns.{role}", match, "by its name")
            free.remove(match)
    values = {name: [row[n] for row in rows if row[n]] for n, name in enumerate(names)}
    for role in ("timestamp", "rating", "user", "item"):
        if role in wanted and role not in taken:
            by_content = _by_content(role, free, values)
            if by_content is not None:
                taken[role] = by_content
                free.remove(str(by_content.value))
    nothing = "no column is called so or looks like it"
    return [taken.get(role) or Guess(f"columns.{role}", None, nothing) for role in wanted]


def _by_content(role: str, free: list[str], values: dict[str, list[str]]) -> Guess | None:
    # Ratings come after the two ids.
    for name in reversed(free) if role == "rating" else free:
        of = values[name]
        if role == "timestamp" and of and unit(of).value in ("s", "ms"):
            if all(_is_number(value) and float(value) > 1e8 for value in of):
                return Guess("columns.timestamp", name, f"numbers like {of[0]}, as times are")
        elif role == "timestamp" and of and all(_is_instant(value) for value in of):
            return Guess("columns.timestamp", name, f"dates or times like {of[0]}")
        elif role == "rating" and of and len(free) > 2 and all(map(_is_number, of)):
            numbers = {float(value) for value in of}
            if len(numbers) <= 21 and max(map(abs, numbers)) <= 100:
                evidence = (
                    f"{len(numbers)} different numbers from {min(numbers):g} to {max(numbers):g}"
                )
                return Guess("columns.rating", name, evidence)
        elif role in ("user", "item"):
            return Guess(f"columns.{role}", name, "the first column that is nothing else")
    return None


def unit(values: Sequence[str]) -> Guess:
    """Seconds, milliseconds, or ISO dates and times."""
    numbers = sorted(float(value) for value in values if _is_number(value))
    if not numbers:
        return Guess("timestamp_unit", "iso", f"it is text: {values[0] if values else ''}")
    middle = numbers[len(numbers) // 2]
    is_ms = middle >= 1e11
    days = datetime.fromtimestamp(min(middle / (1000 if is_ms else 1), 4e9)).astimezone().year
    return Guess("timestamp_unit", "ms" if is_ms else "s", f"{middle:.0f} is then in {days}")


def genre_separator(values: Sequence[str]) -> Guess:
    """What stands between genres."""
    counts = {mark: sum(mark in value for value in values) for mark in ("|", ";", ",", "/")}
    best = max(counts, key=lambda mark: counts[mark])
    if not counts[best]:
        return Guess("genre_separator", "|", "no value seems to hold several")
    return Guess("genre_separator", best, f"in {counts[best]} of {len(values)} values")


def year_from_title(titles: Sequence[str]) -> Guess:
    """Whether titles end in a year."""
    n = sum(bool(_YEAR_AT_END.search(title)) for title in titles)
    answer = "true" if n * 2 > len(titles) else "false"
    return Guess("year_from_title", answer, f"{n} of {len(titles)} titles end like (1995)")


def subject(words: Sequence[str]) -> Guess:
    """What the items are, which decides the prompts: movies, music or anything."""
    text = " ".join(words).lower()
    for kind, pattern in _KINDS.items():
        hit = re.search(pattern, text)
        if hit:
            return Guess("prompts", kind, f"the word {hit.group()} in names of files or columns")
    return Guess("prompts", "generic", "names of files and columns do not tell what the items are")


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
