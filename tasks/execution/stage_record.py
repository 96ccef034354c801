"""How a stage went, for the terminal, `--json` and the report."""

from typing import Literal

from pydantic import BaseModel

from models.config import Side

StageState = Literal["ran", "cached", "partial"]


class StageRecord(BaseModel):
    """How a stage went: computed, taken from the cache, or some of both."""

    name: str
    side: Side | None = None
    model: str | None = None
    arm: str | None = None
    state: StageState
    seconds: float
