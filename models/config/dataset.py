"""Which interactions a run is about: where their files are, and what is kept of them."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from models.config.section import Section, unkeyed

Format = Literal["atomic", "csv", "tsv", "parquet", "jsonl", "movielens", "amazon"]
Quoting = Literal["double", "backslash", "none"]
Role = Literal["interactions", "items", "users"]
ROLES: tuple[Role, ...] = ("interactions", "items", "users")

_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab", ".inter", ".txt"),
    "amazon": (".json", ".jsonl"),
}


def seconds(instant: str) -> int:
    """Unix seconds of an ISO date or time; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(instant)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _as_instant(value: Any) -> Any:
    """Dates and times as ISO text: YAML turns an unquoted one into a date."""
    value = value.isoformat() if isinstance(value, datetime | date) else value
    if isinstance(value, str):
        try:
            seconds(value)
        except ValueError:
            raise ValueError("write a date or time as 2020-01-31 or 2020-01-31T12:00") from None
    return value


Instant = Annotated[str | None, BeforeValidator(_as_instant)]


def _is_an_encoding(value: str) -> str:
    try:
        if not isinstance("".encode(value), bytes):
            raise LookupError
    except (LookupError, ValueError):
        raise ValueError("this is no encoding; utf-8, cp1252 and utf-16 are") from None
    return value


Encoding = Annotated[str, AfterValidator(_is_an_encoding)]


class DataColumns(Section):
    """Names of the columns in your files; numbers from 1 where there is no header."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    user: str = Field("user_id", description="The user id, in interactions and user file.")
    item: str = Field("item_id", description="The item id, in interactions and item file.")
    rating: str | None = Field("rating", description="The rating; empty if the file has none.")
    timestamp: str | None = Field("timestamp", description="The time; empty if the file has none.")
    title: str | None = Field(None, description="The title, in the item file.")
    year: str | None = Field(None, description="The year, in the item file.")
    genres: str | None = Field(None, description="The genres, in the item file.")
    item_file_item: str | None = Field(
        None, description="The item id in the item file, if named differently."
    )
    user_file_user: str | None = Field(
        None, description="The user id in the user file, if named differently."
    )
    item_features: tuple[str, ...] = Field(
        (),
        description="Further columns of the item file: features of context-aware models and the "
        "source `features` of knowledge. Values are words, several stand between genre_separator.",
    )
    user_features: tuple[str, ...] = Field((), description="Likewise of the user file.")
    text: tuple[str, ...] = Field(
        (), description="Columns to append to the title: `Title – Artist`."
    )


class FileFormat(Section):
    """How one file is written, where it differs from the data set's other files."""

    format: Literal["csv", "tsv", "parquet", "jsonl"] | None = Field(
        None, description="As dataset.format; empty: the same."
    )
    delimiter: str | None = Field(None, min_length=1, description="As dataset.delimiter.")
    encoding: Encoding | None = Field(None, description="As dataset.encoding.")
    quoting: Quoting | None = Field(None, description="As dataset.quoting.")
    header: bool | None = Field(None, description="As dataset.header.")


class KCore(Section):
    """Least numbers of interactions, applied again and again until every user and item has them."""

    users: int = Field(0, ge=0, description="Drop users with fewer; 0: no limit.")
    items: int = Field(
        0,
        ge=0,
        description="Drop items with fewer, from the catalogue too; 1 drops items without "
        "interactions; 0: no limit.",
    )


class Dataset(Section):
    """Which files hold the interactions, and which interactions a run uses.

    The content of the files decides a result, not their paths.
    """

    name: str = Field("ml-100k", description="Name; atomic: of the files NAME.inter and NAME.item.")
    path: str | None = unkeyed(
        None,
        description="atomic: folder of the files; empty: the copy inside the RecBole wheel. "
        "movielens: the published zip file or its folder, as a path or URL.",
    )
    title: str | None = Field("movie_title", description="atomic: the title, in NAME.item.")
    year: str | None = Field("release_year", description="atomic: the year, in NAME.item.")
    genres: str | None = Field("class", description="atomic: the genres, in NAME.item.")
    format: Format | None = Field(None, description="File format; empty: inferred from file names.")
    interactions: str | None = unkeyed(
        None, description="Interactions: a path or URL (http, https, s3, … by fsspec)."
    )
    items: str | None = unkeyed(None, description="Items: a path or URL; optional.")
    users: str | None = unkeyed(
        None,
        description="Users: a path or URL; read only if profiles.history.demographics or "
        "columns.user_features names fields.",
    )
    sha256: dict[Role | Literal["path"], str] = unkeyed(
        {},
        description="Expected sha256 by key (interactions, items, users, path); empty: any "
        "content.",
    )
    columns: DataColumns = DataColumns()
    delimiter: str | None = Field(
        None, min_length=1, description="Empty: comma for csv, tab for tsv."
    )
    encoding: Encoding = Field(
        "utf-8", description="Encoding of text files, such as cp1252 or utf-16."
    )
    quoting: Quoting | None = Field(
        None,
        description='double: values may stand in double quotes, and `""` is a quote inside; '
        'backslash: likewise, and `\\"` is one; none: quotes are text. Empty: double for csv, none '
        "for tsv.",
    )
    header: bool = Field(True, description="Whether the first line names the columns.")
    formats: dict[Role, FileFormat] = Field(
        {}, description="Files that are written otherwise, such as `items: {delimiter: '::'}`."
    )
    decimal: Literal[".", ","] = Field(".", description="Decimal mark of ratings.")
    feedback: Literal["ratings", "counts"] = Field(
        "ratings",
        description="counts: the rating column says how often, such as plays. Nothing is then "
        "liked or disliked, and profiles name how often an item was chosen.",
    )
    genre_separator: str = Field(
        "|",
        min_length=1,
        description="Separator of an item's genres; a list as Python or JSON writes it needs none.",
    )
    year_from_title: bool = Field(False, description="Take the year from the title: `Heat (1995)`.")
    timestamp_unit: str = Field(
        "s",
        pattern="^(s|ms|us|ns|iso|.*%.*)$",
        description="s, ms, us, ns: Unix seconds, milliseconds, microseconds, nanoseconds; iso: "
        "ISO 8601 dates and times (UTC); else a format of strptime, such as `%m/%d/%Y %H:%M`.",
    )
    bad_rows: Literal["error", "quarantine"] = Field(
        "error",
        description="Unreadable rows: error stops at the first; quarantine sets them aside with "
        "file, row and reason.",
    )
    since: Instant = Field(None, description="Drop interactions before this date or time (UTC).")
    until: Instant = Field(None, description="Drop interactions from this date or time on (UTC).")
    duplicates: Literal["newest", "oldest", "max-rating", "error"] = Field(
        "newest",
        description="Which interaction of a user and an item to keep; of equally new ones the last "
        "in the file. Duplicates are resolved before rating_from.",
    )
    rating_from: float | None = Field(None, description="Drop lower and missing ratings.")
    k_core: KCore = KCore()

    @field_validator("sha256")
    @classmethod
    def _are_hashes(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
                raise ValueError(f"{key}: a sha256 has 64 hex digits")
        return value

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        kind = self.kind
        if kind == "movielens" and self.path is None and self.interactions is None:
            raise ValueError(
                "format movielens needs path: the zip file, its folder or its URL, or interactions"
            )
        if kind not in ("atomic", "movielens") and self.interactions is None:
            raise ValueError(f"format {kind} needs interactions, the path or URL of a file")
        if kind == "atomic" and (self.interactions or self.items or self.users):
            raise ValueError(
                "atomic files are found by name and path; for files of your own set format to "
                "csv, tsv or parquet"
            )
        if kind == "amazon" and self.columns.item_features:
            raise ValueError("format amazon has title and genres alone; leave out item_features")
        for file in map(self.of, ROLES):
            if file.quoting not in (None, "none") and len(file.delimiter or ",") > 1:
                raise ValueError("a delimiter of several characters goes with quoting none only")
        if self.since and self.until and seconds(self.since) >= seconds(self.until):
            raise ValueError("since must be before until")
        return self

    @property
    def kind(self) -> Format:
        """The format, guessed from the file's name if it is not given."""
        if self.format is not None:
            return self.format
        if self.interactions is None:
            return "atomic"
        name = re.sub(r"\.(gz|bz2|xz|zip)$", "", self.interactions.lower().partition("?")[0])
        for kind, suffixes in _SUFFIXES.items():
            if name.endswith(suffixes):
                return kind
        return "movielens" if name.endswith((".dat", "u.data")) else "csv"

    def of(self, role: Role) -> Self:
        """The section as it holds for one file, `formats` applied."""
        own = self.formats.get(role, FileFormat()).model_dump(exclude_none=True)
        return self.model_copy(update={**own, "formats": {}}) if own else self

    def identity(self) -> dict[str, Any]:
        """As `Section.identity`, with the format that was inferred; paths are left out."""
        return super().identity() | {"format": self.kind}
