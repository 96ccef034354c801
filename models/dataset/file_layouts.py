"""Layouts of files of interactions, items and users: a user's own, and published ones.

MovieLens: as the READMEs of ml-100k, ml-1m, ml-10m, ml-20m, ml-32m and ml-latest-small say
(https://grouplens.org/datasets/movielens/). Amazon: the reviews of 2014, 2018 and 2023
(https://cseweb.ucsd.edu/~jmcauley/datasets.html).
"""

from dataclasses import dataclass, field, replace

from models.config import Dataset, Role
from models.dataset.delimited_text import DETECT, Dialect
from models.schemas import GENRES, ITEM, RATING, TIMESTAMP, TITLE, USER, YEAR

_SECTION = "dataset"
_LOG = (USER, ITEM, RATING, TIMESTAMP)
_U_ITEM_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What the columns of one file hold.

    Attributes:
        dialect: of text; None for Parquet and Amazon's files.
        json: whether each line is a JSON object rather than delimited values.
        columns: our names to the file's.
        text: the file's columns that follow a title.
        features: the file's columns that are features.
        flags: columns that hold 1 where an item has the genre of that name.
        genre_separator: between genres; empty: white space.
        year_from_title: whether titles end in `(1995)`.
        key: the configuration's key that names the columns, for advice; empty: there is none.
    """

    dialect: Dialect | None
    json: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    text: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    genre_separator: str = "|"
    year_from_title: bool = False
    key: str = "dataset.columns"

    @property
    def wanted(self) -> list[str]:
        """The file's columns that are read."""
        return list(
            dict.fromkeys((*self.columns.values(), *self.text, *self.flags, *self.features))
        )


def _movielens(delimiter: str, columns: dict[str, str], *names: str) -> Layout:
    titles = TITLE in columns
    # ml-1m and ml-100k have titles in Latin-1, ml-10m in UTF-8, in files of the same name.
    encoding = DETECT if titles else "utf-8"
    return Layout(
        Dialect(
            delimiter,
            quoted=delimiter == ",",
            encoding=encoding,
            header=not names,
            names=names,
            section=_SECTION,
        ),
        columns=columns,
        flags=_U_ITEM_GENRES if "unknown" in names else (),
        year_from_title=titles,
    )


_SAME = dict(zip(_LOG, _LOG, strict=True))
_MOVIE = {ITEM: ITEM, TITLE: TITLE, GENRES: GENRES}
_U_ITEM = (ITEM, TITLE, "release date", "video release date", "IMDb URL", *_U_ITEM_GENRES)

MOVIELENS: dict[Role, dict[str, Layout]] = {
    "interactions": {
        "ratings.dat": _movielens("::", _SAME, *_LOG),
        "ratings.csv": _movielens(",", {**_SAME, USER: "userId", ITEM: "movieId"}),
        "u.data": _movielens("\t", _SAME, *_LOG),
    },
    "items": {
        "movies.dat": _movielens("::", _MOVIE, *_MOVIE),
        "movies.csv": _movielens(",", {**_MOVIE, ITEM: "movieId"}),
        "u.item": _movielens("|", {ITEM: ITEM, TITLE: TITLE}, *_U_ITEM),
    },
    "users": {
        "users.dat": _movielens("::", {USER: USER}, USER, "gender", "age", "occupation", "zip"),
        "u.user": _movielens("|", {USER: USER}, USER, "age", "gender", "occupation", "zip"),
    },
}
"""By role and name of the file, the preferred one first."""


def layout(config: Dataset, role: Role, tag: str) -> Layout:
    """Look up the layout of a role's file.

    `tag` is the published name of a MovieLens file, else the file's suffix (`.csv.gz`).
    """
    columns = config.columns
    features = {"items": columns.item_features, "users": columns.user_features}.get(role, ())
    return replace(_layout(config.of(role), role, tag), features=features)


def _layout(config: Dataset, role: Role, tag: str) -> Layout:
    if config.kind == "movielens":
        published = MOVIELENS[role][tag]
        assert published.dialect is not None
        if config.encoding == "utf-8":
            return published
        return replace(published, dialect=replace(published.dialect, encoding=config.encoding))
    if config.kind == "atomic":
        return _atomic(config, role)
    return _own(config, role)


def drop_layout(suffix: str) -> Layout:
    """Give the layout of a drop: columns of `INTERACTIONS`, one row a line, in commas or tabs."""
    # A quote that never closes must cost its own line only: nobody is there to mend the file.
    commas = suffix == ".csv"
    dialect = Dialect("," if commas else "\t", quoted=commas, multiline=False)
    return Layout(None if suffix == ".parquet" else dialect, columns=_SAME, key="")


def _atomic(config: Dataset, role: Role) -> Layout:
    columns: dict[Role, dict[str, str | None]] = {
        "interactions": {**_SAME},
        "items": {ITEM: ITEM, TITLE: config.title, YEAR: config.year, GENRES: config.genres},
        "users": {USER: USER},
    }
    dialect = Dialect("\t", quoted=False, encoding=config.encoding, section=_SECTION)
    return Layout(dialect, columns=_given(columns[role]), genre_separator="")


def _own(config: Dataset, role: Role) -> Layout:
    names = config.columns
    item = names.item_file_item or names.item
    columns: dict[Role, dict[str, str | None]] = {
        "interactions": {
            USER: names.user, ITEM: names.item, RATING: names.rating, TIMESTAMP: names.timestamp
        },
        "items": {ITEM: item, TITLE: names.title, YEAR: names.year, GENRES: names.genres},
        "users": {USER: names.user_file_user or names.user},
    }  # fmt: skip
    return Layout(
        _own_dialect(config),
        config.kind == "jsonl",
        _given(columns[role]),
        text=names.text if role == "items" else (),
        genre_separator=config.genre_separator,
        year_from_title=config.year_from_title,
    )


def _own_dialect(config: Dataset) -> Dialect | None:
    if config.kind == "jsonl":
        return Dialect(quoted=False, encoding=config.encoding, section=_SECTION)
    if config.kind not in ("csv", "tsv"):
        return None
    delimiter = config.delimiter or ("," if config.kind == "csv" else "\t")
    by_default = config.kind == "csv" and len(delimiter) == 1
    return Dialect(
        delimiter,
        quoted=by_default if config.quoting is None else config.quoting != "none",
        escaped=config.quoting == "backslash",
        encoding=config.encoding,
        header=config.header,
        section=_SECTION,
    )


def _given(columns: dict[str, str | None]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns.items() if theirs is not None}
