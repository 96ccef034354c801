"""One arm against another, paired by seed and user, with an honest interval.

Users and seeds are both samples: the same users are scored under every seed, so their values
are not independent, and a mean over all of them varies with both. The variances are those of a
crossed random-effects model, estimated by ANOVA moments (Searle, Casella & McCulloch, Variance
Components, 1992, ch. 4). Seeds are few, so what is known of their share is little: each share
keeps Student's t of its own degrees of freedom, and the two halves of the interval add in squares,
in the manner of Graybill & Wang's intervals (JASA 75, 1980).

`benchmarks/coverage.py` is why this interval decides. Pooled degrees of freedom (Satterthwaite)
call luck a gain too often from two or three seeds, most of all where p-values are corrected and
far tails count; a bootstrap (`models.statistics.bootstrap`, shown beside it) resamples too few
seeds to know how they vary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

BETTER = "better"
WORSE = "worse"
NO_DIFFERENCE = "no detectable difference"
NOT_COMPARABLE = "not comparable"

CONFIDENCE = 0.95
_SMALLEST_P = 1e-15

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The outcome: means and standard deviations over seeds, in the metric's own unit.

    A standard deviation is None for a single seed. The difference, its 95 % confidence interval
    and its two-sided p-value are None where arms are not comparable; the relative gain is None
    there and where the baseline's mean is 0. With `seeds` = 1 the interval is over users only
    and says nothing of how another seed would have come out.

    `p_adjusted` is the p-value corrected for all comparisons of its family (see `corrected`),
    and what the verdict follows. `effect_size` is Cohen's d_z: the mean difference over users
    and seeds, divided by the standard deviation over users of their difference in one training
    (root mean square over seeds); positive where the arm is better, None where users do not
    differ. The other two intervals are 95 % percentile bootstraps, of users alone with the seeds
    as they are, and of seeds and users; None where nothing was resampled.
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
    p_adjusted: float | None = None
    effect_size: float | None = None
    users_ci_low: float | None = None
    users_ci_high: float | None = None
    boot_ci_low: float | None = None
    boot_ci_high: float | None = None


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
        The comparison, as if it were the only one: `better` or `worse` where the interval
        excludes 0.
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
    low, high, p_value = _interval(mean, _Spread.of(differences))
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
        p_adjusted=p_value,
        effect_size=_effect_size(differences, sign),
    )


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """Correct a family of comparisons for their number; what is not comparable does not count.

    A difference stays `better` or `worse` where its corrected p-value is below 0.05, too.
    """
    tested = [place for place, of in enumerate(family) if of.p_value is not None]
    adjusted = dict(
        zip(tested, holm([family[place].p_value or 0.0 for place in tested]), strict=True)
    )
    return [_with_p(of, adjusted.get(place)) for place, of in enumerate(family)]


def _with_p(comparison: Comparison, p_adjusted: float | None) -> Comparison:
    lost = p_adjusted is not None and p_adjusted >= 1 - CONFIDENCE
    verdict = NO_DIFFERENCE if lost else comparison.verdict
    return replace(comparison, p_adjusted=p_adjusted, verdict=verdict)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (Scandinavian Journal of Statistics 6, 1979), in the order given.

    The smallest of n p-values is multiplied by n, the next by n - 1 and so on; none gets
    smaller than one before it, or larger than 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def _effect_size(differences: Values, sign: int) -> float | None:
    spread = math.sqrt(float(differences.var(axis=1, ddof=1).mean()))
    mean = float(differences.mean())
    return sign * mean / spread if spread > 1e-12 * max(abs(mean), 1e-3) else None


@dataclass(frozen=True)
class _Spread:
    """How far the grand mean may lie from the truth: variances and degrees of freedom.

    With S seeds and U users, MS_a of the seeds' means, MS_b of the users' means and MS_e of the
    residuals, the grand mean's variance is (MS_a + MS_b - MS_e) / (S U). Chance can push that
    below what users alone contribute, which is therefore its floor.
    """

    of_seeds: float
    """MS_a / (S U)."""
    of_users: float
    """(MS_b - MS_e) / (S U), from 0."""
    floor: float
    """MS_b / (S U)."""
    df_seeds: int
    df_users: int

    @classmethod
    def of(cls, differences: Values) -> Self:
        n_seeds, n_users = differences.shape
        over_users = differences.mean(axis=0)
        floor = float(over_users.var(ddof=1)) / n_users
        if n_seeds == 1:
            return cls(0.0, floor, floor, 1, n_users - 1)
        over_seeds = differences.mean(axis=1)
        residuals = differences - over_seeds[:, None] - over_users + differences.mean()
        df_a, df_b = n_seeds - 1, n_users - 1
        ms_e = float((residuals**2).sum()) / (df_a * df_b)
        return cls(
            of_seeds=float(over_seeds.var(ddof=1)) / n_seeds,
            of_users=max(floor - ms_e / (n_seeds * n_users), 0.0),
            floor=floor,
            df_seeds=df_a,
            df_users=df_b,
        )

    def reach(self, tails: float) -> float:
        """Half the width of the interval that leaves `tails` of the probability outside."""
        from scipy.special import stdtrit

        of_seeds, of_users = (
            float(stdtrit(df, tails / 2)) ** 2 for df in (self.df_seeds, self.df_users)
        )
        both = of_seeds * self.of_seeds + of_users * self.of_users
        return math.sqrt(max(both, of_users * self.floor))


def _interval(mean: float, spread: _Spread) -> tuple[float, float, float]:
    """Confidence interval, and the p-value: what the tails of an interval to 0 would hold."""
    from scipy.optimize import brentq

    half = spread.reach(1 - CONFIDENCE)
    # Values below this are rounding of equal differences, not variation.
    if half <= 1e-12 * max(abs(mean), 1e-3):
        return mean, mean, 1.0 if mean == 0.0 else 0.0
    if abs(mean) >= spread.reach(_SMALLEST_P):
        return mean - half, mean + half, _SMALLEST_P
    exponent = brentq(
        lambda exponent: spread.reach(10.0**exponent) - abs(mean), math.log10(_SMALLEST_P), 0.0
    )
    return mean - half, mean + half, float(10.0**exponent)


def _sd_over_seeds(values: Values) -> float | None:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
