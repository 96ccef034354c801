"""What the promotion gate hands on."""

from pydantic import Field

from tasks.publishing.outputs import Compared


class Judged(Compared):
    """The gate's decision, with all metrics of both models."""

    unknown_to_champion: int = 0
    """Users with held-out interactions whom only the challenger can serve."""
    seen_by_champion: int = 0
    """Held-out interactions that the champion has learnt from, left out for both."""
    metrics: dict[str, float]
    """The challenger's, by METRIC@K, over all users that it serves."""
    champion_metrics: dict[str, float] = Field(default_factory=dict)
