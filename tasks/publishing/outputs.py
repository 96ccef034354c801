"""What the stages of the nightly flow hand each other."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from models.config import Side
from models.publishing.promotion_gate import Outcome
from tasks.storage.artifacts import Handle, Handoff


class Serving(Handoff):
    """Who is served, and how wide the lists are: columns of `promotions`."""

    users_known: int
    users_served: int
    """Who has a list: everyone but users who know the whole catalogue."""
    users_by_model: int
    """Whose list is the model's own; the others' come from their text or from popularity."""
    coverage: float
    """Share of the catalogue that is in any list."""
    tail_share: float
    """Share of the places in lists that items outside of the head have, see `slices.HEAD_SHARE`."""


class Recommended(Handoff):
    """A trained model's lists and vectors, for those who read the published set.

    Lists have the schema `RECOMMENDATIONS`, those of `popular` for users who are not known at all,
    under the empty name; vectors are `vectors("vector", width, key)`.
    """

    recommendations: Handle
    popular: Handle
    vectors: dict[Side, Handle]
    meaning: dict[Side, str]
    """What the vectors are, or why there are none."""
    scored_by_product: bool
    serving: Serving


class Compared(Handoff):
    """Challenger and champion, over the users that both can serve.

    Means, difference and interval are in the metric's own unit; None where nothing was compared.
    """

    metric: str
    k: int
    champion_version: str | None = None
    champion_mean: float | None = None
    challenger_mean: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    users: int | None = None
    cold_difference: float | None = None
    """Of the quarter of users with the fewest interactions, like its interval's upper end."""
    cold_ci_high: float | None = None
    anchor_version: str | None = None
    anchor_difference: float | None = None
    """Challenger minus anchor, over the users that both can serve."""
    anchor_ci_low: float | None = None
    decision: Outcome
    reason: str


class Judged(Compared):
    """The gate's decision, with all metrics of both models."""

    unknown_to_champion: int = 0
    """Users with held-out interactions whom only the challenger can serve."""
    seen_by_champion: int = 0
    """Held-out interactions that the champion has learnt from, left out for both."""
    metrics: dict[str, float]
    """The challenger's, by METRIC@K, over all users that it serves."""
    champion_metrics: dict[str, float] = Field(default_factory=dict)


class Promotion(Compared):
    """How a night ended: a row of DuckDB's `promotions`."""

    experiment: str
    decided_at: datetime
    flow_run_id: str | None
    challenger_version: str | None
    tolerance: float
    interactions: int
    new_interactions: int
    quarantined: int
    start: Literal["cold", "warm"]
    refit: str | None = None
    cost_usd: float | None = None
    served_from: Literal["all", "judged"] | None = None
    users_known: int | None = None
    users_served: int | None = None
    users_by_model: int | None = None
    coverage: float | None = None
    tail_share: float | None = None
    list_overlap: float | None = None
    """Mean share of a user's list that was in the champion's."""
    profile_drift: float | None = None
    """1 minus the mean cosine of today's profile vectors with the champion's."""
