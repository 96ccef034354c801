"""Which interactions a run is about: where their files are, and what is kept of them."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from models.config.section import NOT_IDENTITY, Section

Format = Literal["atomic", "csv", "tsv", "parquet", "movielens", "amazon"]
Role = Literal["interactions", "items", "users"]
ROLES: tuple[Role, ...] = ("interactions", "items", "users")

_AS_BEFORE = ("name", "path", "title", "year", "genres")
_FOUND_BY_CONTENT = {"path", "interactions", "items", "users"}
_SUFFIXES: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab", ".inter", ".txt"),
    "amazon": (".json", ".jsonl"),
}


def _as_instant(value: Any) -> Any:
    """Dates as ISO text: YAML turns an unquoted one into a date."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


Instant = Annotated[str | None, BeforeValidator(_as_instant)]


def seconds(instant: str) -> int:
    """Unix seconds of an ISO date or time; UTC unless it says otherwise."""
    moment = datetime.fromisoformat(instant)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


class DataColumns(Section):
    """The names of your files' columns; without a header their numbers, from 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    user: str = Field("user_id", description="The user, in the interactions and the user file.")
    item: str = Field("item_id", description="The item, in the interactions and the item file.")
    rating: str | None = Field("rating", description="Empty if there is none.")
    timestamp: str | None = Field("timestamp", description="Empty if there is none.")
    title: str | None = Field(None, description="Of the item file, like year and genres.")
    year: str | None = None
    genres: str | None = None
    item_file_item: str | None = Field(
        None, description="The item in the item file, if it is called otherwise there."
    )
    user_file_user: str | None = Field(
        None, description="The user in the user file, if it is called otherwise there."
    )
    text: tuple[str, ...] = Field(
        (), description="Columns of the item file that follow the title: `Title – Artist`."
    )


class KCore(Section):
    """How many interactions every user and item must have, in what the filter leaves."""

    users: int = Field(0, ge=0, description="Users with fewer are dropped; 0: no limit.")
    items: int = Field(
        0,
        ge=0,
        description="Items with fewer are dropped, from the catalogue too: 1 drops only those "
        "without any; 0: no limit.",
    )


class Dataset(Section):
    """Where the interactions come from, and which of them count.

    Paths decide nothing: what the files hold does.
    """

    name: str = Field(
        "ml-100k",
        description="What to call it; of atomic files the stem: NAME.inter and NAME.item.",
    )
    path: str | None = Field(
        None,
        description="Folder with the atomic files; empty means the copy inside the RecBole wheel. "
        "For movielens the published zip file or its folder, here or at a URL.",
    )
    title: str | None = Field("movie_title", description="Column of NAME.item with the title.")
    year: str | None = Field("release_year", description="Column of NAME.item with the year.")
    genres: str | None = Field("class", description="Column of NAME.item with the genres.")
    format: Format | None = Field(None, description="Empty: guessed from the files' names.")
    interactions: str | None = Field(
        None, description="File of interactions, or its URL (http, https, s3, … by fsspec)."
    )
    items: str | None = Field(None, description="File of items, likewise; may be left out.")
    users: str | None = Field(None, description="File of users; read only if fields are asked for.")
    sha256: dict[Role | Literal["path"], str] = Field(
        {},
        description="What the files must hash to, by the key that names them; empty: anything.",
        json_schema_extra=NOT_IDENTITY,
    )
    columns: DataColumns = DataColumns()
    delimiter: str | None = Field(
        None, min_length=1, description="Empty: comma for csv, tab for tsv."
    )
    encoding: str = Field("utf-8", description="Of text files: utf-8, latin-1, cp1252, utf-16, …")
    quoting: Literal["double", "none"] | None = Field(
        None, description='Whether values may stand in "quotes"; empty: in csv yes, in tsv no.'
    )
    header: bool = Field(True, description="Whether the first line names the columns.")
    genre_separator: str = Field("|", min_length=1, description="Between the genres of an item.")
    year_from_title: bool = Field(False, description="Titles end in the year: `Heat (1995)`.")
    timestamp_unit: Literal["s", "ms", "iso"] = Field(
        "s", description="Unix seconds, Unix milliseconds, or ISO 8601 dates and times (UTC)."
    )
    bad_rows: Literal["error", "quarantine"] = Field(
        "error",
        description="Rows that cannot be read: stop, or set them aside, counted and with reasons.",
    )
    since: Instant = Field(None, description="Drop interactions before this date or time (UTC).")
    until: Instant = Field(None, description="Drop interactions from this date or time on (UTC).")
    duplicates: Literal["newest", "oldest", "max-rating", "error"] = Field(
        "newest",
        description="Which interaction of a user and an item counts, if there are several; of "
        "equally new ones the last in the file. They are resolved before rating_from.",
    )
    rating_from: float | None = Field(
        None, description="Ratings below this are no interaction, nor are missing ones."
    )
    k_core: KCore = KCore()

    @field_validator("since", "until")
    @classmethod
    def _is_an_instant(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                seconds(value)
            except ValueError:
                raise ValueError("write a date or time as 2020-01-31 or 2020-01-31T12:00") from None
        return value

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        try:
            if not isinstance("".encode(value), bytes):
                raise LookupError
        except LookupError:
            raise ValueError(f"{value} is no encoding; utf-8, latin-1 and utf-16 are") from None
        return value

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
        if self.quoting == "double" and len(self.delimiter or ",") > 1:
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
        name = re.sub(r"\.(gz|bz2|xz)$", "", self.interactions.lower().partition("?")[0])
        for kind, suffixes in _SUFFIXES.items():
            if name.endswith(suffixes):
                return kind
        return "movielens" if name.endswith((".dat", "u.data")) else "csv"

    def identity(self) -> dict[str, Any]:
        """Of plain atomic files as ever; else what is read and kept, wherever the files are."""
        whole = super().identity()
        since = self._settings_since()
        if self.kind == "atomic":
            return {key: whole[key] for key in whole if key in _AS_BEFORE or key in since}
        known = {key: whole[key] for key in whole if key not in _FOUND_BY_CONTENT}
        return {**known, "format": self.kind}

    def _settings_since(self) -> set[str]:
        return {
            name
            for name, field in type(self).model_fields.items()
            if name not in _AS_BEFORE
            and name != "sha256"
            and getattr(self, name) != field.default
            and (name, getattr(self, name)) != ("format", "atomic")
        }
