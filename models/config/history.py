"""Which part of what is known a profile may be written from, and what a prompt shows of it."""

from typing import Literal

from pydantic import Field, field_validator

from models.config.section import Section


class History(Section):
    """Which part of a user's training history a profile is written from."""

    limit: int = Field(
        40,
        ge=1,
        description="At most this many interactions per user in a prompt; the offline writer "
        "takes its statistics of the whole training history.",
    )
    order: Literal["newest", "best", "stratified"] = Field(
        "stratified",
        description="newest: latest first; best: highest rated first; stratified: the best and "
        "the worst rated, half each, so that dislikes are seen.",
    )
    ratings: Literal["shown", "hidden"] = Field(
        "shown",
        description="hidden: a prompt names no rating and no mean; which items are chosen, and "
        "whether a template has them among liked or disliked, still follows the ratings. Of "
        "prompts only, like the next two.",
    )
    titles: Literal["shown", "masked"] = Field(
        "shown",
        description="masked: genres and year stand in place of a title, so that an LLM cannot "
        "draw on what it remembers of the item, its reviews and ratings included.",
    )
    demographics: tuple[str, ...] = Field(
        (),
        description="Columns of NAME.user that a prompt may tell the LLM, e.g. [age, occupation]; "
        "none unless named here.",
    )

    @field_validator("demographics")
    @classmethod
    def _each_field_once(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) < len(fields):
            raise ValueError("each field may stand once")
        return fields


class ItemHistory(History):
    """What an item's profile is written from; order does not apply."""

    limit: int = Field(
        10,
        ge=0,
        description="How many other items, chosen by the same users, a profile may name; with 0 "
        "it says what the item is, and nothing of who else chose it.",
    )

    @field_validator("demographics")
    @classmethod
    def _items_have_none(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if fields:
            raise ValueError("items have no user fields; set profiles.history.demographics")
        return fields
