"""Guesses about the columns of a file, from rows of all of it; each with its evidence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from models.dataset.time_formats import is_number, looks_like_times, time_unit

NOTHING = "no column is called so or looks like it"
_NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        "user", "userid", "uid", "reviewerid", "customerid", "customer", "visitorid", "memberid",
        "listenerid", "readerid", "sessionid", "playerid", "username", "nickname", "login",
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
"""Whole names, the likeliest first."""
_COUNTS = (
    "plays play playcount listens listen listencount count counts freq frequency times views view "
    "clicks click purchases quantity qty visits streams scrobbles checkins hits"
)
_PARTS = {
    "user": (
        "user reviewer customer client visitor member listener reader player viewer account person "
        "session subscriber buyer shopper"
    ),
    "item": (
        "item movie film product book album track song artist game business article news recipe "
        "asin isbn sku anime show video place location venue poi restaurant joke course podcast "
        "hotel app"
    ),
    "rating": f"rating ratings rate score scores star stars grade grades preference mark marks "
    f"points vote {_COUNTS}",
    "timestamp": "timestamp time ts date datetime at when day utc",
    "title": "title name",
    "year": "year published released",
    "genres": "genre genres category categories tag tags shelf shelves style",
    "text": "artist author authors brand director directors creator band",
}
"""Words of names such as `Book-Rating` or `userScore`."""
_ENDINGS = {"id", "ids", "key", "code", "no", "nr", "num", "number", "value", "hash", "raw"}
_FEW = 0.1
"""Share of bad values that a column may have."""
_KINDS = {
    "music": r"album|track|song|artist|vinyl|listen|music",
    "movies": r"movie|film|imdb|tmdb",
}
_COMMA = re.compile(r"-?\d+(,\d+)?")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_YEAR_AT_END = re.compile(r"\(\d{4}(?:[-–]\d{0,4})?\)\s*$")


@dataclass(frozen=True)
class Guess:
    """A setting and the evidence for it; `value` None: there is no such column."""

    setting: str
    value: str | None
    evidence: str


def header_guess(first: Sequence[str], rows: Sequence[Sequence[str]]) -> Guess:
    """Guess whether the first line names columns: it has no number where all rows have one."""
    values = [[row[n] for row in rows] for n in range(len(first))]
    numeric = [bool(column) and all(map(_is_numeric, column)) for column in values]
    named = [name for name, numbers in zip(first, numeric, strict=True) if numbers]
    named = [name for name in named if not _is_numeric(name)]
    exact = [name for name in first if any(_rank(name, role)[0] == 0 for role in _NAMES)]
    if exact or named:
        return Guess("header", "true", f"the first line has {', '.join((exact or named)[:4])}")
    return Guess("header", "false", f"the first line holds values: {', '.join(first[:4])}")


def columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], wanted: Sequence[str]
) -> list[Guess]:
    """Guess which column is which: by its name, otherwise by its values in rows of all the file.

    A column whose name fits, but not its values, is left out, and the evidence says why. `wanted`
    are some of `user`, `item`, `rating`, `timestamp`, `title`, `year`, `genres` and `text`.
    """
    values = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    guesses: dict[str, Guess] = {}
    free = list(names)
    for role in wanted:
        guess = _by_name(role, free, values)
        if guess is not None:
            guesses[role] = guess
            if guess.value is not None:
                free.remove(guess.value)
    free = [name for name in free if not _is_index(name, values[name])]
    for role in ("timestamp", "rating", "user", "item"):
        if role in wanted and (role not in guesses or guesses[role].value is None):
            lacking = sum(other not in guesses for other in ("user", "item"))
            found = _by_content(role, free, values, lacking)
            if found is not None:
                guesses[role] = found
                free.remove(str(found.value))
    return [guesses.get(role) or Guess(f"columns.{role}", None, NOTHING) for role in wanted]


def _by_name(role: str, free: list[str], values: dict[str, list[str]]) -> Guess | None:
    ranked = sorted((_rank(name, role), place) for place, name in enumerate(free))
    doubts = []
    for rank, place in ranked:
        if rank[0] > 2:
            break
        doubt = _doubt(role, values[free[place]])
        if not doubt:
            return Guess(f"columns.{role}", free[place], "by its name")
        doubts.append(f"{free[place]} is called so, but {doubt}")
    return Guess(f"columns.{role}", None, doubts[0]) if doubts else None


def _rank(name: str, role: str) -> tuple[int, int]:
    """How well a name fits a role: whole (0), by its last word (1), by another (2), not (3)."""
    parts = _words(name)
    plain = "".join(parts)
    if plain in _NAMES[role]:
        return 0, _NAMES[role].index(plain)
    while len(parts) > 1 and parts[-1] in _ENDINGS:
        parts.pop()
    known = _PARTS[role].split()
    if parts and parts[-1] in known:
        return 1, 0
    taken = any(parts[-1:] == [word] for words in _PARTS.values() for word in words.split())
    return (2, 0) if not taken and set(parts) & set(known) else (3, 0)


def _words(name: str) -> list[str]:
    """`Book-Rating`, `bookRating` and `book_rating:float` as `[book, rating]`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.split(":")[0])
    return re.findall(r"[^\W_]+", split.lower())


def _doubt(role: str, values: list[str]) -> str:
    """Why a column cannot have a role, whatever its name; empty if it can."""
    filled = [value for value in values if value]
    if role == "rating":
        odd = [value for value in filled if not _is_numeric(value)]
        if len(odd) > _FEW * len(filled):
            return f"{odd[0]} is no number"
        if any(map(_THOUSANDS.fullmatch, filled)) and decimal(filled) == ".":
            return f"{next(filter(_THOUSANDS.fullmatch, filled))} is ambiguous"
    if role == "timestamp" and values:
        if len(values) - len(filled) > _FEW * len(values):
            return f"{len(values) - len(filled)} of {len(values)} rows have none"
        unit, reason = time_unit(filled)
        return "" if unit else reason
    return ""


def _is_index(name: str, values: list[str]) -> bool:
    """Whether a column only numbers the rows, as pandas writes it."""
    if name == "" or name.lower().startswith("unnamed") or name.lower() == "index":
        return True
    if len(values) < 3 or not all(value.isdecimal() for value in values):
        return False
    numbers = list(map(int, values))
    return numbers[0] in (0, 1) and all(b > a for a, b in pairwise(numbers))


def _by_content(
    role: str, free: list[str], values: dict[str, list[str]], lacking: int
) -> Guess | None:
    """Guess a column by its values; `lacking` ids are still to be found among `free`."""
    # Ratings come after the two ids.
    for name in reversed(free) if role == "rating" else free:
        filled = [value for value in values[name] if value]
        if role == "timestamp":
            certain = len(filled) == len(values[name]) and looks_like_times(filled)
            evidence = f"times like {filled[0]}" if certain else ""
        elif role == "rating":
            others = [one for one in free if one != name and _may_be_id(values[one])]
            evidence = _rating_evidence(filled) if len(others) >= lacking else ""
        else:
            evidence = "the first column that is nothing else" if _may_be_id(filled) else ""
        if evidence:
            return Guess(f"columns.{role}", name, evidence)
    return None


def _may_be_id(values: list[str]) -> bool:
    """Whether values are not all numbers, some with a fraction."""
    return not (all(map(_is_numeric, filter(None, values))) and any("." in v for v in values))


def _rating_evidence(values: list[str]) -> str:
    """Why values may be ratings or counts; empty if they may not."""
    if not values or not all(map(_is_numeric, values)):
        return ""
    numbers = _numbers(values)
    if is_counts("", values):
        return f"skewed whole numbers from {min(numbers):g} to {max(numbers):g}"
    if len(set(numbers)) > 21 or max(map(abs, numbers)) > 100:
        return ""
    return f"{len(set(numbers))} different numbers from {min(numbers):g} to {max(numbers):g}"


def is_counts(name: str, values: Sequence[str]) -> bool:
    """Whether a rating column counts: by its name, or by whole numbers without bound, skewed."""
    numbers = sorted(_numbers([value for value in values if value]))
    if not numbers or numbers[0] < 0 or any(number % 1 for number in numbers):
        return False
    if set(_words(name)[-1:]) & set(_COUNTS.split()):
        return True
    middle = numbers[len(numbers) // 2]
    return numbers[-1] > 100 and numbers[-1] >= 5 * max(middle, 1)


def feedback(name: str, values: Sequence[str]) -> Guess:
    """Guess whether a rating column holds ratings or counts."""
    numbers = _numbers(values) or [0.0]
    evidence = f"{name}: from {min(numbers):g} to {max(numbers):g}"
    if is_counts(name, values):
        return Guess("feedback", "counts", f"{evidence}, how often rather than how good")
    return Guess("feedback", "ratings", evidence)


def decimal(values: Sequence[str]) -> str:
    """Tell the decimal mark of numbers."""
    with_comma = [value for value in values if "," in value]
    return "," if with_comma and not all(map(_THOUSANDS.fullmatch, with_comma)) else "."


def decimal_mark(values: Sequence[str]) -> Guess:
    """Guess the decimal mark of ratings; without a value where it is the dot."""
    if decimal(values) == ".":
        return Guess("decimal", None, "no commas")
    return Guess("decimal", ",", f"numbers like {next(value for value in values if ',' in value)}")


def unit(values: Sequence[str]) -> Guess:
    """Guess the unit or format of times."""
    return Guess("timestamp_unit", *time_unit(values))


def genre_separator(values: Sequence[str]) -> Guess:
    """Guess the separator of genres."""
    if values and all(map(_LIST.fullmatch, values)):
        return Guess("genre_separator", "|", f"needs none: lists such as {values[0][:60]}")
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


def _is_numeric(value: str) -> bool:
    return is_number(value) or bool(_COMMA.fullmatch(value) or _THOUSANDS.fullmatch(value))


def _numbers(values: Sequence[str]) -> list[float]:
    mark = "." if decimal(values) == "," else ""
    return [float(value.replace(",", mark)) for value in values if _is_numeric(value)]
