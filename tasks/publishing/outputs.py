"""What the stages of the nightly flow hand each other."""

from datetime import datetime
from typing import Literal

from models.config import Side
from models.publishing.promotion_gate import Outcome
from tasks.storage.artifacts import Handle, Handoff


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
