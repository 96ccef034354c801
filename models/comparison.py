"""One arm against the baseline, paired by seed and user, with an honest interval.

Users and seeds are both samples: the same users are scored under every seed, so their values
are not independent, and a mean over all of them varies with both. The interval is that of a
crossed random-effects model estimated by ANOVA moments (Searle, Casella & McCulloch, Variance
Components, 1992, ch. 4), its degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
NOT_COMPARABLE = "not comparable"

CONFIDENCE = 0.95

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Protocol:
    """What two arms must share before their values may be paired."""

    seeds: tuple[int, ...]
    users: NDArray[np.str_]
    """str (n_users,), the users scored, in the order of their values."""
    epochs_budgets: tuple[int, ...]
    """One per seed."""


@dataclass(frozen=True)
class Comparison:
    """The outcome: means and standard deviations over seeds, in the metric's own unit.

    A standard deviation is None for a single seed. The difference, its 95 % confidence interval
    and its two-sided p-value are None where arms are not comparable; the relative gain is None
    there and where the baseline's mean is 0. With `seeds` = 1 the interval is over users only
    and says nothing of how another seed would have come out.
    """

    baseline_mean: float
    baseline_sd: float | None
    arm_mean: float
    arm_sd: float | None
    gain_percent: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    seeds: int
    users: int
    verdict: str


def obstacle(arm: Protocol, baseline: Protocol) -> str | None:
    """Say why two arms cannot be compared; None if they can."""
    if arm.seeds != baseline.seeds:
        return f"seeds differ (baseline {_listed(baseline.seeds)}; arm {_listed(arm.seeds)})"
    if arm.epochs_budgets != baseline.epochs_budgets:
        return (
            f"epoch budgets differ (baseline {_listed(sorted(set(baseline.epochs_budgets)))}; "
            f"arm {_listed(sorted(set(arm.epochs_budgets)))})"
        )
    if not np.array_equal(arm.users, baseline.users):
        only_one = len(np.setxor1d(arm.users, baseline.users))
        return f"users differ ({only_one} scored in one arm only)"
    if len(arm.users) < 2:
        return "fewer than 2 users were scored"
    return None


def compare(
    arm: Values, baseline: Values, obstacle: str | None = None, less_is_better: bool = False
) -> Comparison:
    """Compare an arm with the baseline.

    Args:
        arm: float64 (n_seeds, n_users), a metric.
        baseline: same shape, same seeds and users in the same order.
        obstacle: why the two are not comparable, if so; then shapes may differ.
        less_is_better: as for a loss; the gain is then what is saved.

    Returns:
        The comparison; `better` or `worse` where the interval excludes 0.
    """
    summary = {
        "baseline_mean": float(baseline.mean()),
        "baseline_sd": _sd_over_seeds(baseline),
        "arm_mean": float(arm.mean()),
        "arm_sd": _sd_over_seeds(arm),
    }
    n_seeds, n_users = arm.shape
    if obstacle is not None:
        return Comparison(
            **summary,  # type: ignore[arg-type]
            gain_percent=None,
            difference=None,
            ci_low=None,
            ci_high=None,
            p_value=None,
            seeds=n_seeds,
            users=n_users,
            verdict=f"{NOT_COMPARABLE}: {obstacle}",
        )
    differences = arm - baseline
    mean = float(differences.mean())
    low, high, p_value = _student(mean, *_variance_of_mean(differences))
    base, sign = summary["baseline_mean"], -1 if less_is_better else 1
    better, worse = (high < 0, low > 0) if less_is_better else (low > 0, high < 0)
    return Comparison(
        **summary,  # type: ignore[arg-type]
        gain_percent=sign * 100.0 * mean / base if base else None,
        difference=mean,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        seeds=n_seeds,
        users=n_users,
        verdict=BETTER if better else WORSE if worse else NO_DIFFERENCE,
    )


def _variance_of_mean(differences: Values) -> tuple[float, float]:
    """Variance of the grand mean and its degrees of freedom.

    With S seeds and U users, MS_a of the seeds' means, MS_b of the users' means and MS_e of the
    residuals: (MS_a + MS_b - MS_e) / (S U). Chance can push that below what seeds or users
    alone contribute, which is therefore its floor.
    """
    n_seeds, n_users = differences.shape
    over_users = differences.mean(axis=0)
    if n_seeds == 1:
        return float(over_users.var(ddof=1)) / n_users, n_users - 1
    over_seeds = differences.mean(axis=1)
    residuals = differences - over_seeds[:, None] - over_users + differences.mean()
    df_a, df_b = n_seeds - 1, n_users - 1
    ms_a = n_users * float(over_seeds.var(ddof=1))
    ms_b = n_seeds * float(over_users.var(ddof=1))
    ms_e = float((residuals**2).sum()) / (df_a * df_b)
    combined = max(ms_a + ms_b - ms_e, ms_a, ms_b)
    spread = ms_a**2 / df_a + ms_b**2 / df_b + ms_e**2 / (df_a * df_b)
    df = max(combined**2 / spread, 1.0) if spread else 1.0
    return combined / (n_seeds * n_users), df


def _student(mean: float, variance: float, df: float) -> tuple[float, float, float]:
    """Confidence interval and two-sided p-value by Student's t."""
    from scipy.special import stdtr, stdtrit

    # Values below this are rounding of equal differences, not variation.
    error = math.sqrt(variance) if variance > (1e-12 * max(abs(mean), 1e-3)) ** 2 else 0.0
    if error == 0.0:
        return mean, mean, 1.0 if mean == 0.0 else 0.0
    half = float(stdtrit(df, 0.5 + CONFIDENCE / 2)) * error
    return mean - half, mean + half, 2.0 * float(stdtr(df, -abs(mean) / error))


def _sd_over_seeds(values: Values) -> float | None:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
