"""What the stages of the nightly flow hand each other."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from models.config import Side
from models.promotion import Outcome
from tasks.handoffs import Handoff
from tasks.storage import Handle


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


class Offered(Handoff):
    """What a trained model has to offer to those who read the published set.

    `recommendations` has the schema `RECOMMENDATIONS`; vectors are `vectors("vector", width, key)`.
    """

    recommendations: Handle
    vectors: dict[Side, Handle]
    meaning: dict[Side, str]
    """What the vectors are, or why there are none."""
    scored_by_product: bool
    users_known: int
    users_served: int


class Promotion(Handoff):
    """How a night ended: a row of DuckDB's `promotions`.

    Means, difference and interval are in the metric's own unit, over the users that both models
    can serve; None where nothing was compared.
    """

    experiment: str
    decided_at: datetime
    flow_run_id: str | None
    champion_version: str | None
    challenger_version: str | None
    metric: str
    k: int
    champion_mean: float | None = None
    challenger_mean: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    tolerance: float
    users: int | None = None
    decision: Outcome
    reason: str
    interactions: int
    new_interactions: int
    quarantined: int
    start: Literal["cold", "warm"]
    refit: str | None = None
    cost_usd: float | None = None
