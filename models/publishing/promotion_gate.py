"""The gate: may a challenger replace the champion? Pure arithmetic on values per user.

Both models are scored on the same held-out interactions of the same users. The challenger passes
if the interval of `models.statistics.paired_comparison` does not reach below -tolerance: a test of
non-inferiority. One training of each is compared, so that interval is the paired one over users
and does not cover the variance that another seed would bring.
"""

from dataclasses import dataclass
from typing import Literal

from models.statistics.paired_comparison import Estimate

Outcome = Literal["published", "kept", "needs approval", "skipped", "failed"]
JUDGED: tuple[Outcome, ...] = ("published", "kept", "needs approval")
"""Outcomes of nights whose challenger was judged."""


@dataclass(frozen=True)
class Decision:
    """How a night ended, and why, in words that stand after the outcome and a colon."""

    outcome: Outcome
    reason: str


def decide(found: Estimate, metric: str, confidence: float, tolerance: float) -> Decision:
    """Publish the challenger if its interval does not reach below -tolerance.

    `found` has the champion as its baseline; `tolerance`, 0 or more, is in the metric's own unit.
    """
    assert found.difference is not None
    assert found.ci_low is not None
    assert found.ci_high is not None
    compared = (
        f"{metric} {found.arm_mean:.4f} against the champion's {found.baseline_mean:.4f} "
        f"over {found.users} users, difference {signed(found.difference)}; the "
        f"{100 * confidence:g} % interval from {signed(found.ci_low)} to {signed(found.ci_high)}"
    )
    if found.ci_low >= -tolerance:
        return Decision("published", f"{compared} does not reach below {signed(-tolerance)}")
    return Decision("kept", f"{compared} reaches below {signed(-tolerance)}")


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


def signed(value: float) -> str:
    """`+0.0031`, with a real minus; a zero has no sign."""
    text = f"{value:+.4f}".replace("-", "−")
    return "0.0000" if text[1:] == "0.0000" else text
