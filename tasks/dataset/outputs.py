"""Hand-offs of the dataset stages: small records of handles and facts, never data frames.

They are what Prefect persists per task, so they hold no secrets and stay a few kilobytes.
"""

from pydantic import Field

from models.config import NOT_IDENTITY
from tasks.storage.artifacts import Handle, Handoff


class Dropped(Handoff):
    """Rows that a step left out of a data set, and why."""

    step: str
    rows: int
    why: str


class Ingestion(Handoff):
    """How many rows were read, kept and dropped, and why."""

    read: int
    """Rows of interactions in the file, `dropped` and `kept` together."""
    kept: int
    dropped: tuple[Dropped, ...] = ()
    items: tuple[Dropped, ...] = ()
    """Rows of the item file that were set aside, and items that left the catalogue."""
    notes: tuple[str, ...] = ()
    quarantine: Handle | None = None
    """Schema `QUARANTINE`; None where every row could be read."""


class Interactions(Handoff):
    """The data set: schemas `INTERACTIONS`, `ITEMS` and `USERS`.

    Demographic fields stand apart (`demographics_schema`), so that asking for one trains nothing
    anew and they reach nothing but prompts; None unless asked for.
    """

    interactions: Handle
    items: Handle
    users: Handle
    demographics: Handle | None = None
    ingestion: Ingestion | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """Not part of what trainings depend on."""


class Splits(Handoff):
    """Schema `INTERACTIONS` three times, without overlap."""

    train: Handle
    valid: Handle
    test: Handle
