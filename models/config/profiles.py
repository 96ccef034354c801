"""Profiles, their embeddings, and the targets made of them."""

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from models.config.llm import LLM
from models.config.section import Section, Side, unkeyed

_FIELD = re.compile(r"\w{1,64}", re.ASCII)


class Columns(Section):
    """Names of the columns in an imported file."""

    user: str = Field("user_id", description="Column with the raw user id.")
    item: str = Field("item_id", description="Column with the raw item id, in files of items.")
    text: str = Field("text", description="profiles: column with the text, e.g. summary.")
    embedding: str = Field("embedding", description="embeddings: column with the vector.")

    def ids(self, side: Side) -> str:
        """The column with the ids of users or of items."""
        return self.user if side == "users" else self.item


class History(Section):
    """Which part of a user's training history a profile uses."""

    limit: int = Field(
        40,
        ge=1,
        description="Most interactions per user in a prompt. The offline writer takes its "
        "statistics from the whole training history.",
    )
    order: Literal["newest", "best", "stratified"] = Field(
        "stratified",
        description="newest: latest first; best: highest rated first; stratified: half best and "
        "half worst rated, so that dislikes are visible.",
    )
    ratings: Literal["shown", "hidden"] = Field(
        "shown",
        description="hidden: a prompt shows no rating and no mean. Ratings still decide which "
        "items it lists, and which as liked or disliked. Prompts only, like the next two keys.",
    )
    feedback: Literal["ratings", "counts"] = Field(
        "ratings", description="Taken from dataset.feedback, whatever stands here."
    )
    titles: Literal["shown", "masked"] = Field(
        "shown",
        description="masked: genres and year replace a title, so that an LLM cannot use what it "
        "remembers of the item.",
    )
    too_long: Literal["shorten", "missing"] = Field(
        "shorten",
        description="If the LLM's context has no room for a prompt. shorten: halve the limit for "
        "that user until it fits; missing: no profile.",
    )
    demographics: tuple[str, ...] = Field(
        (),
        description="Columns of the user file that a prompt may show the LLM, e.g. [age, "
        "occupation]; none by default.",
    )

    @field_validator("demographics")
    @classmethod
    def _each_field_once(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) < len(fields):
            raise ValueError("each field may stand once")
        return fields


class ItemHistory(History):
    """Which companions an item's profile names; order does not apply."""

    limit: int = Field(
        10,
        ge=0,
        description="Most other items, chosen by the same users, that a profile names; 0: the "
        "profile describes the item by its title, year and genres alone, and sees no interaction.",
    )

    @field_validator("demographics")
    @classmethod
    def _items_have_none(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if fields:
            raise ValueError("items have no user fields; set profiles.history.demographics")
        return fields


class Imported(Section):
    """What a section may say of a file that is imported: provider import, or pack."""

    provider: str
    path: str | None
    columns: Columns = Columns()
    unknown_users: Literal["error", "drop"] = Field(
        "error",
        description="import only: how to treat users without a training interaction.",
    )
    max_missing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Stop the run if more than this share of the users has no profile, or no "
        "imported vector.",
    )

    @model_validator(mode="after")
    def _import_has_a_path(self) -> Self:
        """Refuse a path without a provider that reads one, and such a provider without a path."""
        if (self.provider in ("import", "pack")) != (self.path is not None):
            raise ValueError(
                "provider import and path belong together: set both or neither; so do pack and path"
            )
        return self


class Profiles(Imported):
    """One text per user, written from training interactions only."""

    provider: Literal["offline", "openai", "openai-batch", "import", "pack", "items"] = Field(
        "offline",
        description="offline: statistics of the history as text, free, no LLM; openai: any "
        "OpenAI-compatible endpoint; openai-batch: its Batch API, at half the price and within a "
        "day; import: a file of existing profiles; pack: a knowledge pack, which holds what an "
        "LLM wrote, with a card; items: no texts about users, a user is the mean "
        "of the profiles of the training items (item_profiles).",
    )
    path: str | None = unkeyed(  # its content decides, see tasks/profiles/profile_import.py
        None,
        description="import: a .csv, .tsv, .json, .jsonl or .parquet file with one text per "
        "user, and where possible history_sha256 and history_count; pack: a folder of "
        "data/knowledge/, or the path of another.",
    )
    prompt: str = Field(
        "user-movies",
        description="Template: a name in prompts/ or a path of a .j2 file.",
    )
    history: History = History()
    fields: dict[str, str] = Field(
        {},
        description="Structured output: field name to instruction. The LLM answers in JSON, and "
        "the fields become lines `Name: text` of the profile, in this order. Empty: plain text. "
        "The endpoint must support response_format json_schema.",
    )
    max_words: int | None = Field(
        None,
        ge=1,
        description="Reject longer answers; state the limit in the prompt, too. Empty: any length "
        "within llm.max_tokens.",
    )
    llm: LLM = LLM()
    min_new_interactions: int = unkeyed(  # decides nothing without earlier profiles, see Previous
        1,
        ge=1,
        description="`llmkt nightly` only: a user with fewer new training interactions since the "
        "last profile keeps that profile. Users only.",
    )
    interactions: Literal["train", "all"] = Field(
        "train",
        description="train: profiles see training interactions only; all: validation and test "
        "interactions as well, as in the published code (requires allow_leakage).",
    )
    allow_leakage: bool = unkeyed(  # it permits; `interactions` decides
        False, description="Permit interactions: all. Every result is then marked leaky."
    )

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if self.interactions == "all" and self.path is not None:
            raise ValueError("interactions is for profiles that are written here, not imported")
        if self.interactions == "all" and not self.allow_leakage:
            raise ValueError(
                "interactions all writes profiles from held-out interactions; set allow_leakage "
                "to true if that is meant, and every result will be marked leaky"
            )
        for name in self.fields:
            if not _FIELD.fullmatch(name):
                raise ValueError(
                    f"fields: {name!r} is no name; use up to 64 letters, digits and underscores"
                )
        return self

    @property
    def asks(self) -> bool:
        """Whether an LLM writes the profiles, from a prompt."""
        return self.provider in ("openai", "openai-batch")

    @property
    def has_prompt(self) -> bool:
        """Whether the profiles are an LLM's answers to a prompt, of this run or of a pack."""
        return self.asks or self.provider == "pack"

    @property
    def sees_nothing(self) -> bool:
        """Whether no interaction decides a profile: items, each by itself."""
        return self.history.limit == 0

    @property
    def provenance(self) -> Literal["none seen", "train-only", "leaky"]:
        """Which interactions a profile that is written here has seen."""
        if self.interactions == "all":
            return "leaky"
        return "none seen" if self.sees_nothing else "train-only"

    @property
    def pooled(self) -> bool:
        """Whether users have no texts, and are described by the mean of their items' profiles."""
        return self.provider == "items"

    @property
    def batched(self) -> bool:
        """Whether the LLM is asked through a Batch API, at its discount."""
        return self.provider == "openai-batch"

    def identity(self) -> dict[str, Any]:
        """The order of the fields counts, which a mapping's identity has not."""
        return {**super().identity(), "fields": list(self.fields.items())}


class ItemProfiles(Profiles):
    """One text per item of the training part, about the item and its audience."""

    prompt: str = Field(
        "item-movies",
        description="Template: a name in prompts/ or a path of a .j2 file.",
    )
    history: ItemHistory = ItemHistory()

    @model_validator(mode="after")
    def _items_describe_themselves(self) -> Self:
        if self.pooled:
            raise ValueError("provider items is for users: set item_profiles.provider to another")
        return self
