"""The card of a knowledge pack: where its texts come from."""

from typing import Any, Literal

from pydantic import Field

from models.config import Section, Side


class SideCard(Section):
    """What a card says of the texts of one side."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the Parquet file.")
    prompt: str = Field(description="Name of the template.")
    prompt_sha256: str = Field(pattern=r"^[0-9a-f]{16}$", description="Of the template's text.")
    sees: Literal["training history", "nothing"] = Field(
        description="The interactions that the author saw. nothing: title, year and genres alone."
    )
    history: dict[str, Any] = Field(
        {},
        description="The settings of `history` that decided what a prompt showed, if not the "
        "defaults.",
    )


class Card(Section):
    """`card.yaml`: where the texts of a pack come from."""

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    dataset: str
    author: str
    written: str
    license: str
    about: str = ""
    split: str = Field("", description="The split that the histories belong to, in words.")
    oddities: tuple[str, ...] = ()
    users: SideCard | None = None
    items: SideCard | None = None
    vectors_sha256: str | None = Field(None, description="Of `vectors.parquet`, if it is there.")

    def side(self, side: Side) -> SideCard | None:
        """Return what it says of users or of items."""
        return self.users if side == "users" else self.items
