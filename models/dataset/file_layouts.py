"""How files of interactions, items and users are laid out: a user's own, and published ones.

MovieLens: as the READMEs of ml-100k, ml-1m, ml-10m, ml-20m, ml-32m and ml-latest-small say
(https://grouplens.org/datasets/movielens/). Amazon: the reviews of 2014, 2018 and 2023
(https://cseweb.ucsd.edu/~jmcauley/datasets.html).
"""

from dataclasses import dataclass, field

from models.config import Dataset, Role
from models.dataset.delimited_text import Syntax
from models.schemas import GENRES, ITEM, RATING, TIMESTAMP, TITLE, USER, YEAR

UTF8_OR_LATIN1 = "utf-8 or latin-1"
"""ml-1m and ml-100k have titles in Latin-1, ml-10m in UTF-8, in files of the same name."""

_U_ITEM_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_U_ITEM = (ITEM, TITLE, "release date", "video release date", "IMDb URL", *_U_ITEM_GENRES)
_COLONS, _TABS, _BARS = Syntax("::", False), Syntax("\t", False), Syntax("|", False)
_COMMAS = Syntax(",", True)


@dataclass(frozen=True)
class Layout:
    """How one file is read.

    Attributes:
        syntax: of separated values; None for Parquet and JSON.
        encoding: of text files.
        header: whether the first line names the columns.
        names: the columns, in order, if the file does not name them.
        columns: our names to the file's.
        text: the file's columns that follow a title.
        flags: columns that hold 1 where an item has the genre of that name.
        genre_separator: between genres; empty: white space.
        year_from_title: whether titles end in `(1995)`.
    """

    syntax: Syntax | None
    encoding: str = "utf-8"
    header: bool = True
    names: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    genre_separator: str = "|"
    year_from_title: bool = False


def _movielens(syntax: Syntax, columns: dict[str, str], *names: str) -> Layout:
    titles = TITLE in columns
    return Layout(
        syntax,
        encoding=UTF8_OR_LATIN1 if titles else "utf-8",
        header=not names,
        names=names,
        columns=columns,
        year_from_title=titles,
        flags=_U_ITEM_GENRES if names == _U_ITEM else (),
    )


_LOG = (USER, ITEM, RATING, TIMESTAMP)
_OF_LOG = dict(zip(_LOG, _LOG, strict=True))
_OF_FILM = {ITEM: ITEM, TITLE: TITLE, GENRES: GENRES}

MOVIELENS: dict[Role, dict[str, Layout]] = {
    "interactions": {
        "ratings.dat": _movielens(_COLONS, _OF_LOG, *_LOG),
        "ratings.csv": _movielens(_COMMAS, {**_OF_LOG, USER: "userId", ITEM: "movieId"}),
        "u.data": _movielens(_TABS, _OF_LOG, *_LOG),
    },
    "items": {
        "movies.dat": _movielens(_COLONS, _OF_FILM, *_OF_FILM),
        "movies.csv": _movielens(_COMMAS, {**_OF_FILM, ITEM: "movieId"}),
        "u.item": _movielens(_BARS, {ITEM: ITEM, TITLE: TITLE}, *_U_ITEM),
    },
    "users": {
        "users.dat": _movielens(_COLONS, {USER: USER}, USER, "gender", "age", "occupation", "zip"),
        "u.user": _movielens(_BARS, {USER: USER}, USER, "age", "gender", "occupation", "zip"),
    },
}
"""By role and name of the file, the preferred one first."""


def layout(config: Dataset, role: Role, tag: str) -> Layout:
    """How the file of a role is read.

    Args:
        config: the data set.
        role: what the file holds.
        tag: of MovieLens the file's published name, else its suffix (`.csv.gz`).
    """
    if config.kind == "movielens":
        known = MOVIELENS[role][tag]
        given = config.encoding if config.encoding != "utf-8" else known.encoding
        return Layout(**{**vars(known), "encoding": given})
    if config.kind == "atomic":
        return _atomic(config, role)
    return _own(config, role)


def _atomic(config: Dataset, role: Role) -> Layout:
    columns = {
        "interactions": {name: name for name in (USER, ITEM, RATING, TIMESTAMP)},
        "items": _given(
            {ITEM: ITEM, TITLE: config.title, YEAR: config.year, GENRES: config.genres}
        ),
        "users": {USER: USER},
    }[role]
    return Layout(_TABS, encoding=config.encoding, columns=columns, genre_separator="")


def _own(config: Dataset, role: Role) -> Layout:
    of = config.columns
    columns = {
        "interactions": _given(
            {USER: of.user, ITEM: of.item, RATING: of.rating, TIMESTAMP: of.timestamp}
        ),
        "items": _given(
            {ITEM: of.item_file_item or of.item, TITLE: of.title, YEAR: of.year, GENRES: of.genres}
        ),
        "users": {USER: of.user_file_user or of.user},
    }[role]
    syntax = None
    if config.kind in ("csv", "tsv"):
        delimiter = config.delimiter or ("," if config.kind == "csv" else "\t")
        by_default = config.kind == "csv" and len(delimiter) == 1
        quoted = by_default if config.quoting is None else config.quoting == "double"
        syntax = Syntax(delimiter, quoted)
    return Layout(
        syntax,
        encoding=config.encoding,
        header=config.header,
        columns=columns,
        text=of.text if role == "items" else (),
        genre_separator=config.genre_separator,
        year_from_title=config.year_from_title,
    )


def _given(columns: dict[str, str | None]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns.items() if theirs is not None}
