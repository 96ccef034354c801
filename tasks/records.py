"""What is told beside results: how stages went, and the map that the report shows."""

from typing import Literal

from pydantic import BaseModel

from models.config import Side
from tasks.handoffs import Handoff
from tasks.storage import Handle

StageState = Literal["ran", "cached", "partial"]


class StageRecord(BaseModel):
    """How a stage went: computed, taken from the cache, or some of both."""

    name: str
    side: Side | None = None
    model: str | None = None
    arm: str | None = None
    state: StageState
    seconds: float


class Mapped(Handoff):
    """A map of one side's profiles for the report: `id`, `x`, `y`, `genre`, `text`."""

    side: Side
    points: Handle
    method: Literal["umap", "pca"]
    of: int
    """How many have an embedding; more than `points.rows` where a sample is shown."""
