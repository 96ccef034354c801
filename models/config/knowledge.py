"""Profiles, their embeddings, and the targets made of them."""

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.config.device import Placed
from models.config.history import History, ItemHistory
from models.config.llm import LLM
from models.config.section import IDENTITY_IF_SET, NOT_IDENTITY, Section
from models.config.training import Side

Reduction = Literal["umap", "pca", "none"]

_FIELD = re.compile(r"\w{1,64}", re.ASCII)


class Columns(Section):
    """How an imported file names what is read from it."""

    user: str = Field("user_id", description="Column with the raw user id.")
    item: str = Field("item_id", description="Column with the raw item id, for items' files.")
    text: str = Field("text", description="profiles: column with the text, e.g. summary.")
    embedding: str = Field("embedding", description="embeddings: column with the vector.")

    def ids(self, side: Side) -> str:
        """The column with the ids of users or of items."""
        return self.user if side == "users" else self.item


class Profiles(Section):
    """One text per user, written from training interactions only."""

    provider: Literal["offline", "openai", "openai-batch", "import", "items"] = Field(
        "offline",
        description="offline: readable statistics of the history, free, no LLM; openai: any "
        "OpenAI-compatible endpoint; openai-batch: its Batch API, at half the price and within a "
        "day; import: a file of profiles made elsewhere; items: no texts of their own, users are "
        "described by the mean of their training items' profiles (item_profiles). Users only.",
    )
    path: str | None = Field(
        None,
        description="import only: a .csv, .tsv, .json, .jsonl or .parquet file with one text per "
        "user, and where possible history_sha256 and history_count beside it.",
        json_schema_extra=NOT_IDENTITY,  # what the file holds decides, see tasks/imports.py
    )
    columns: Columns = Columns()
    unknown_users: Literal["error", "drop"] = Field(
        "error",
        description="import only: what to do with users that the training part does not have.",
    )
    prompt: str = Field(
        "user-movies",
        description="Prompt template: a name in prompts/ (without .j2) or a path to a .j2 file.",
    )
    history: History = History()
    fields: dict[str, str] = Field(
        {},
        description="Ask for JSON with these fields (name: what to write there), which become the "
        "profile's lines `Name: text` in this order; empty means plain text. The endpoint must "
        "know response_format json_schema.",
    )
    max_words: int | None = Field(
        None,
        ge=1,
        description="Longer answers are of no use; say in the prompt how long they may be. Empty "
        "means any length within llm.max_tokens.",
    )
    llm: LLM = LLM()
    max_missing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of users that may end without a profile; above it the run stops.",
    )
    min_new_interactions: int = Field(
        1,
        ge=1,
        description="Where profiles of an earlier run are given (llmkt nightly): a user with "
        "fewer new training interactions since the last profile keeps that. Users only.",
        json_schema_extra=NOT_IDENTITY,  # decides nothing without earlier profiles, see Previous
    )
    interactions: Literal["train", "all"] = Field(
        "train",
        description="all: written from validation and test interactions too, as the published "
        "code does; needs allow_leakage.",
        json_schema_extra=IDENTITY_IF_SET,
    )
    allow_leakage: bool = Field(
        False,
        description="Let profiles see held-out interactions; all that comes of them is marked "
        "leaky.",
        json_schema_extra=NOT_IDENTITY,  # it permits; `interactions` decides
    )

    @model_validator(mode="after")
    def _import_has_a_path(self) -> Self:
        _require_path(self.provider, self.path)
        return self

    @model_validator(mode="after")
    def _leakage_is_meant(self) -> Self:
        if self.interactions == "all" and self.provider == "import":
            raise ValueError("interactions is for profiles that are written here, not imported")
        if self.interactions == "all" and not self.allow_leakage:
            raise ValueError(
                "interactions all writes profiles from held-out interactions; set allow_leakage "
                "to true if that is meant, and every result will be marked leaky"
            )
        return self

    @property
    def asks(self) -> bool:
        """Whether an LLM writes the profiles, from a prompt."""
        return self.provider in ("openai", "openai-batch")

    @model_validator(mode="after")
    def _fields_have_names(self) -> Self:
        for name in self.fields:
            if not _FIELD.fullmatch(name):
                raise ValueError(
                    f"fields: {name!r} is no name; use up to 64 letters, digits and underscores"
                )
        return self

    def identity(self) -> dict[str, Any]:
        """The order of the fields counts, which a mapping's identity has not."""
        return {**super().identity(), "fields": list(self.fields.items())}


class ItemProfiles(Profiles):
    """One text per item of the training part: what it is, and who chose it."""

    prompt: str = Field(
        "item-movies",
        description="Prompt template: a name in prompts/ (without .j2) or a path to a .j2 file.",
    )
    history: ItemHistory = ItemHistory()

    @model_validator(mode="after")
    def _items_describe_themselves(self) -> Self:
        if self.provider == "items":
            raise ValueError("provider items is for users: set item_profiles.provider to another")
        return self


class Embeddings(Placed):
    """The text model that turns profiles into vectors."""

    provider: Literal["sentence-transformers", "openai", "import", "hashing"] = Field(
        "sentence-transformers",
        description="sentence-transformers: a local model; openai: any OpenAI-compatible endpoint; "
        "import: a file of vectors made elsewhere, which needs no profiles; hashing: counts of "
        "hashed words, no language model, for tests of scale and smoke runs.",
    )
    path: str | None = Field(
        None,
        description="import only: a .parquet, .npy, .pt or .json file with one vector per user.",
        json_schema_extra=NOT_IDENTITY,
    )
    ids: str | None = Field(
        None,
        description="import only: the user ids of a .npy file or a bare .pt tensor, one a line or "
        "a JSON list; empty means the file's own name with .ids.txt or .ids.json at its end.",
        json_schema_extra=NOT_IDENTITY,
    )
    columns: Columns = Columns()
    unknown_users: Literal["error", "drop"] = Field(
        "error",
        description="import only: what to do with users that the training part does not have.",
    )
    max_missing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="import only: share of users that may be without a vector; above it the run "
        "stops.",
    )
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="sentence-transformers: all-MiniLM-L6-v2 (ships in a package) or a local "
        "folder; openai: text-embedding-3-small, text-embedding-ada-002, …",
    )
    base_url: str | None = Field(None, description="openai only; empty means api.openai.com.")
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="openai only: the variable's name.",
        json_schema_extra=NOT_IDENTITY,
    )
    api_key_secret: str | None = Field(
        None, description="openai only: a Prefect Secret block.", json_schema_extra=NOT_IDENTITY
    )
    dimensions: int = Field(
        384,
        ge=2,
        description="hashing only: the vectors' width.",
        json_schema_extra=IDENTITY_IF_SET,
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16",
        description="sentence-transformers only: bfloat16 is about twice as fast on recent CPUs, "
        "at cosine 0.9999 to float32.",
    )
    batch_size: int = Field(
        16,
        ge=1,
        description="sentence-transformers only: texts at once; small batches of like length "
        "stay in the CPU's cache and waste little on padding.",
        json_schema_extra=NOT_IDENTITY,
    )
    threads: int = Field(
        1, ge=1, description="CPU threads of the text model.", json_schema_extra=NOT_IDENTITY
    )

    @model_validator(mode="after")
    def _import_has_a_path(self) -> Self:
        _require_path(self.provider, self.path)
        return self


def _require_path(provider: str, path: str | None) -> None:
    if (provider == "import") != (path is not None):
        raise ValueError("provider import and path belong together: set both or neither")


class Umap(Section):
    """UMAP's own parameters (McInnes et al. 2018), passed by keyword."""

    n_neighbors: int = Field(15, ge=2)
    min_dist: float = Field(0.9, ge=0, le=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    fit_sample: int = Field(
        50_000,
        ge=100,
        description="Of more users (items) than this, UMAP is fitted on as many, drawn by "
        "targets.seed, and the others are transformed in batches: time then grows with their "
        "number, and memory hardly.",
        json_schema_extra=IDENTITY_IF_SET,
    )


class Refit(Section):
    """When a kept reducer is fitted anew rather than asked to transform."""

    new_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Refit when a larger share of the embedded users was not there at the fit.",
    )
    drift: float = Field(
        0.1,
        ge=0,
        description="Refit when the mean embedding has moved further since the fit, in units of "
        "the users' spread at the fit (root mean square distance from their mean).",
    )


class Targets(Section):
    """Embeddings reduced to the width of the tapped layer."""

    reduction: Reduction | None = Field(
        None,
        description="umap: as published; pca: principal components; none: the whole embedding, "
        "for alignments that bridge widths. Empty means none for `linear`, `contrastive`, "
        "`generative` and `relational`, umap for the others.",
    )
    width: int | None = Field(
        None, ge=1, description="Target width; empty means the width of each model's tapped layer."
    )
    seed: int = 42
    centre: bool = Field(True, description="Subtract each coordinate's mean over users.")
    scale: Literal["global", "per-coordinate", "none"] = Field(
        "global",
        description="Divide by one standard deviation over all coordinates (keeps their relative "
        "sizes), or by each coordinate's own, so that the targets have unit variance.",
    )
    umap: Umap = Umap()
    refit: Refit = Field(
        Refit(),
        description="Where the reducer of an earlier run is kept (llmkt nightly): when to refit.",
        json_schema_extra=NOT_IDENTITY,  # decides nothing without a kept reducer, see Kept
    )
