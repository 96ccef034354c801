"""The gate: may a challenger replace the champion? Pure arithmetic on values per user.

Both models are scored on the same held-out interactions of the same users. The difference of
their means varies with the choice of users, so an interval for it is taken by bootstrap (Efron
and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13, percentile interval): users are
drawn with replacement, each with both of their values, which keeps the pairing. The challenger
passes if the interval does not reach below -tolerance: a test of non-inferiority. One training of
each is compared, so the interval says nothing of how another seed would have come out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.statistics.bootstrap import resampled_means

Values = NDArray[np.float64]
Outcome = Literal["published", "kept", "skipped"]


@dataclass(frozen=True)
class Gain:
    """What the challenger gains on the champion, in the metric's own unit.

    Attributes:
        champion_mean, challenger_mean: over the users that both can serve.
        difference: challenger minus champion.
        ci_low, ci_high: its interval.
        users: how many were paired.
    """

    champion_mean: float
    challenger_mean: float
    difference: float
    ci_low: float
    ci_high: float
    users: int


@dataclass(frozen=True)
class Decision:
    """How a night ended, and why, in words that stand after the outcome and a colon."""

    outcome: Outcome
    reason: str


def gain(
    challenger: Values, champion: Values, confidence: float, resamples: int, seed: int
) -> Gain:
    """The difference of two models' means over users, with its bootstrap interval.

    Args:
        challenger: float64 (n_users,), a metric.
        champion: the same users' values, in the same order.
        confidence: of the two-sided interval, such as 0.95.
        resamples: how often users are drawn.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two users, values that do not pair or are not finite.
    """
    if challenger.shape != champion.shape or challenger.ndim != 1 or len(challenger) < 2:
        raise ValueError(f"two or more pairs are needed, not {challenger.shape}, {champion.shape}")
    differences = challenger - champion
    if not np.isfinite(differences).all():
        raise ValueError("values must be finite")
    tail = (1 - confidence) / 2
    means = resampled_means([differences], seed, resamples)
    low, high = np.quantile(means, (tail, 1 - tail))
    return Gain(
        champion_mean=float(champion.mean()),
        challenger_mean=float(challenger.mean()),
        difference=float(differences.mean()),
        ci_low=float(low),
        ci_high=float(high),
        users=len(differences),
    )


def decide(found: Gain, metric: str, confidence: float, tolerance: float) -> Decision:
    """Publish the challenger if its interval does not reach below -tolerance.

    Args:
        found: from `gain`.
        metric: its name in words, `NDCG@10`.
        confidence: of the interval.
        tolerance: 0 or more, in the metric's own unit.
    """
    compared = (
        f"{metric} {found.challenger_mean:.4f} against the champion's {found.champion_mean:.4f} "
        f"over {found.users} users, difference {_signed(found.difference)}; the "
        f"{100 * confidence:g} % interval from {_signed(found.ci_low)} to {_signed(found.ci_high)}"
    )
    if found.ci_low >= -tolerance:
        return Decision("published", f"{compared} does not reach below {_signed(-tolerance)}")
    return Decision("kept", f"{compared} reaches below {_signed(-tolerance)}")


def first_champion(metric: str, mean: float, users: int) -> Decision:
    """There was nothing to be compared with."""
    return Decision("published", f"first champion, {metric} {mean:.4f} over {users} users")


def too_few_new(new: int, needed: int) -> Decision | None:
    """Skip the night if fewer interactions are new than are needed; None if they suffice."""
    if new >= needed:
        return None
    noun = "interaction" if new == 1 else "interactions"
    return Decision("skipped", f"{new} new {noun}, {needed} needed")


def too_few_users(users: int) -> Decision:
    """Nothing is decided on one user."""
    noun = "user" if users == 1 else "users"
    return Decision(
        "kept",
        f"only {users} {noun} with held-out interactions can be served by both models, so that "
        "they cannot be compared",
    )


def _signed(value: float) -> str:
    """`+0.0031`, with a real minus; a zero has no sign."""
    text = f"{value:+.4f}".replace("-", "−")
    return "0.0000" if text[1:] == "0.0000" else text
