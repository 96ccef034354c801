"""What the promotion gate hands on."""

from pydantic import Field

from models.publishing.promotion_gate import Outcome
from tasks.storage.artifacts import Handoff


class Judged(Handoff):
    """What the gate found; see `Promotion` for the columns of the same names."""

    decision: Outcome
    reason: str
    metric: str
    k: int
    champion_version: str | None = None
    champion_mean: float | None = None
    challenger_mean: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    users: int
    unknown_to_champion: int = 0
    """Users with held-out interactions whom only the challenger can serve."""
    seen_by_champion: int = 0
    """Held-out interactions that the champion has learnt from, left out for both."""
    metrics: dict[str, float]
    """The challenger's, by METRIC@K, over all users that it serves."""
    champion_metrics: dict[str, float] = Field(default_factory=dict)
