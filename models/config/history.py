"""Which part of what is known a profile may be written from, and what a prompt shows of it."""

from typing import Literal

from pydantic import Field, field_validator

from models.config.section import Section


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
    titles: Literal["shown", "masked"] = Field(
        "shown",
        description="masked: genres and year replace a title, so that an LLM cannot use what it "
        "remembers of the item.",
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
        "profile describes the item only.",
    )

    @field_validator("demographics")
    @classmethod
    def _items_have_none(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if fields:
            raise ValueError("items have no user fields; set profiles.history.demographics")
        return fields
