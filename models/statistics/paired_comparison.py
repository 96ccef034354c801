"""An arm's difference from its baseline, paired by replicate and user, with its interval.

A replicate is a pair of split and seed. Users and replicates are both samples: the same users are
scored under every replicate, so their values are not independent, and a mean over all of them
varies with both. The variances are those of a crossed random-effects model, estimated by ANOVA
moments (Searle, Casella & McCulloch, Variance Components, 1992, ch. 4). Few replicates say little
about their variance, so each variance keeps Student's t of its own degrees of freedom, and the two
halves of the interval add in squares: Banerjee's interval for two means of unequal variance
(Sankhya 22, 1960), applied to variance components; its coverage is about 95 %. With a single pair
of trainings, as in a nightly run, this is the paired t interval over users: it does not cover the
variance that another seed would bring.

`benchmarks/coverage.py` is why this interval decides: from two or three seeds, pooled degrees of
freedom (Satterthwaite) call chance a gain too often, most of all in the far tails that matter
where the level is shared between claims.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

import numpy as np

from models.arrow import Floats

EXPLORATORY = "exploratory"
NOT_COMPARABLE = "not comparable"

CONFIDENCE = 0.95
_SMALLEST_P = 1e-15


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The numbers of one comparison of an arm with its baseline, in the metric's own unit.

    Every table, hand-off and command that shows a comparison holds this record or its fields; the
    descriptions are DuckDB's. None stands for NULL.
    """

    baseline_mean: Annotated[float, "over users and replicates (pairs of split and seed)"]
    baseline_sd: Annotated[
        float | None, "over splits, or over the seeds of one split; NULL for a single one"
    ]
    arm_mean: Annotated[float, "over users and replicates"]
    arm_sd: Annotated[float | None, "as baseline_sd"]
    gain_percent: Annotated[
        float | None,
        "difference in percent of baseline_mean, positive where the arm is better; NULL where that "
        "mean is 0",
    ] = None
    difference: Annotated[
        float | None,
        "arm - baseline; NULL, like all columns from gain_percent to effect_size, where the arms "
        "are not comparable",
    ] = None
    ci_low: Annotated[
        float | None,
        "confidence interval of the difference, paired by replicate and user, both taken as "
        "samples (crossed random effects); over users only where there is one training",
    ] = None
    ci_high: float | None = None
    ci_level: Annotated[
        float | None,
        "the interval's confidence: 0.95, or that of the adjusted test where the two disagree",
    ] = None
    p_value: Annotated[
        float | None,
        "two-sided, by the same model, not adjusted; NULL too where one training decides nothing",
    ] = None
    p_adjusted: Annotated[
        float | None,
        "the smallest family-wise error at which the claim holds; NULL without a claim or test",
    ] = None
    effect_size: Annotated[
        float | None,
        "Cohen's d_z, positive where the arm is better: mean difference over users and replicates, "
        "divided by the root of the mean over replicates of its variance over users; NULL where "
        "users do not differ",
    ] = None
    seeds: Annotated[int, "how many different ones were paired"]
    splits: Annotated[int, "how many different ones were paired"] = 1
    users: Annotated[int, "how many were paired, in every split"]
    verdict: Annotated[
        str,
        "of a claim: better, worse, no detectable difference, not above …, one seed: undecided, "
        "no transfer chosen, not tested: and the reason; exploratory where nothing is claimed; not "
        "comparable: and the reason",
    ]


def compare(
    arm: Floats,
    baseline: Floats,
    obstacle: str | None = None,
    less_is_better: bool = False,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Compare an arm with the baseline.

    Args:
        arm: float64 (n_replicates, n_users), a metric: a row per split, or per seed of one.
        baseline: same shape, same replicates and users in the same order.
        obstacle: why the two are not comparable, if so; then shapes may differ.
        less_is_better: as for a loss; the gain is then the reduction.
        confidence: of the two-sided interval.

    Returns:
        The estimate, `exploratory` or not comparable: `models.statistics.claims` decides.

    Raises:
        ValueError: for fewer than two users, and for values that do not pair or are not finite.
    """
    found = Estimate(
        baseline_mean=float(baseline.mean()),
        baseline_sd=_sd_over_rows(baseline),
        arm_mean=float(arm.mean()),
        arm_sd=_sd_over_rows(arm),
        seeds=arm.shape[0],
        users=arm.shape[1],
        verdict=f"{NOT_COMPARABLE}: {obstacle}",
    )
    if obstacle is not None:
        return found
    differences = _differences(arm, baseline)
    mean = float(differences.mean())
    low, high, p_value = _interval(mean, Spread.of(differences), confidence)
    sign = -1 if less_is_better else 1
    return replace(
        found,
        gain_percent=sign * 100.0 * mean / found.baseline_mean if found.baseline_mean else None,
        difference=mean,
        ci_low=low,
        ci_high=high,
        ci_level=confidence,
        p_value=p_value,
        effect_size=_effect_size(differences, sign),
        verdict=EXPLORATORY,
    )


def _differences(arm: Floats, baseline: Floats) -> Floats:
    if arm.shape != baseline.shape or arm.ndim != 2 or arm.shape[1] < 2:
        raise ValueError(
            f"two or more pairs of users are needed, not {arm.shape} and {baseline.shape}"
        )
    differences = arm - baseline
    if not np.isfinite(differences).all():
        raise ValueError("values must be finite")
    return differences


def _effect_size(differences: Floats, sign: int) -> float | None:
    spread = math.sqrt(float(differences.var(axis=1, ddof=1).mean()))
    mean = float(differences.mean())
    return sign * mean / spread if spread > 1e-12 * max(abs(mean), 1e-3) else None


@dataclass(frozen=True)
class Spread:
    """Variances of the grand mean and their degrees of freedom.

    With S replicates ("seeds" below) and U users, MS_a of the replicates' means, MS_b of the
    users' means and MS_e of the residuals, the grand mean's variance is (MS_a + MS_b - MS_e) /
    (S U). Chance can push that below what users alone contribute, which is therefore its floor.
    """

    seeds: float
    """MS_a / (S U)."""
    users: float
    """(MS_b - MS_e) / (S U), from 0."""
    floor: float
    """MS_b / (S U)."""
    df_seeds: int
    df_users: float

    @classmethod
    def of(cls, differences: Floats) -> Self:
        """Estimate them from float64 (n_replicates, n_users), NaN for users whom a replicate lacks.

        Replicates weigh the same, and so do the users of each. Without NaN these are the moments
        above, else those of the unbalanced layout (Searle, Casella & McCulloch, ch. 5).
        """
        n_seeds, _ = differences.shape
        present = ~np.isnan(differences)
        weights = present / (n_seeds * present.sum(axis=1, keepdims=True))
        over_seeds = np.nanmean(differences, axis=1)
        rest = np.where(present, differences - over_seeds[:, None], 0.0) * weights
        of_users, of_cells = float((weights.sum(axis=0) ** 2).sum()), float((weights**2).sum())
        small = 1 / (1 - of_users)  # n / (n - 1)
        floor = small * float((rest.sum(axis=0) ** 2).sum())
        if n_seeds == 1:
            return cls(0.0, floor, floor, 1, 1 / of_users - 1)
        seeds = float(over_seeds.var(ddof=1)) / n_seeds
        again = 1 - of_cells / of_users  # 0 where no user has two replicates
        users = (floor - small * float((rest**2).sum())) / again if again > 1e-9 else 0.0
        return cls(seeds, max(users, 0.0), floor, n_seeds - 1, 1 / of_users - 1)

    def reach(self, tails: float) -> float:
        """Half the width of the interval that leaves `tails` of the probability outside."""
        from scipy.special import stdtrit

        t_seeds, t_users = (
            float(stdtrit(df, tails / 2)) ** 2 for df in (self.df_seeds, self.df_users)
        )
        both = t_seeds * self.seeds + t_users * self.users
        return math.sqrt(max(both, t_users * self.floor))


def at_level(found: Estimate, arm: Floats, baseline: Floats, level: float) -> Estimate:
    """Widen the interval of a comparison to that of a test at `level`, in place of 0.05."""
    mean = float((arm - baseline).mean())
    low, high, _ = _interval(mean, Spread.of(arm - baseline), 1 - level)
    return replace(found, ci_low=low, ci_high=high, ci_level=1 - level)


def over_nights(
    nights: Sequence[Mapping[str, float]], confidence: float
) -> tuple[float, float, float]:
    """Mean of the nights' mean differences, with the lower and upper end of its interval.

    Nights are replicates that need not share users; each has differences by user, two or more.
    """
    users = sorted(set().union(*nights))
    differences = np.array([[night.get(user, np.nan) for user in users] for night in nights])
    mean = float(np.nanmean(differences, axis=1).mean())
    low, high, _ = _interval(mean, Spread.of(differences), confidence)
    return mean, low, high


def _interval(mean: float, spread: Spread, confidence: float) -> tuple[float, float, float]:
    """Confidence interval, and the p-value: the tails of an interval that ends at 0."""
    from scipy.optimize import brentq

    half = spread.reach(1 - confidence)
    # Values below this are rounding of equal differences, not variation.
    if half <= 1e-12 * max(abs(mean), 1e-3):
        return mean, mean, 1.0 if mean == 0.0 else 0.0
    if abs(mean) >= spread.reach(_SMALLEST_P):
        return mean - half, mean + half, _SMALLEST_P
    exponent = brentq(
        lambda exponent: spread.reach(10.0**exponent) - abs(mean), math.log10(_SMALLEST_P), 0.0
    )
    return mean - half, mean + half, float(10.0**exponent)


def _sd_over_rows(values: Floats) -> float | None:
    return float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
