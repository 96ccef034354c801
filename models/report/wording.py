"""Results in words: printed numbers, and a comparison in plain language.

A `Row` has the keys of view `comparison`, `contrasts_all` or `slice_comparison`; those about
profiles may be missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from models.config import ARMS, BASELINE, RANKING_METRICS
from models.evaluation.beyond_accuracy import BEYOND
from models.statistics.claims import (
    BETTER,
    LEVEL,
    NO_DIFFERENCE,
    NO_TRANSFER,
    NOT_ABOVE,
    NOT_TESTED,
    ONE_SEED,
    WORSE,
)
from models.statistics.paired_comparison import CONFIDENCE, EXPLORATORY, NOT_COMPARABLE

Row = Mapping[str, Any]

NOTHING = "–"
_SHARED = "(several)"
_LEAKY = " (leaky)"

_METRICS = {
    **{name: metric.label for name, metric in RANKING_METRICS.items()},
    **{name: name.capitalize() for name in BEYOND},
    "auc": "AUC",
    "logloss": "LogLoss",
}
_PROFILE_NOTES = {
    "offline": "Profiles: offline (statistics of the history), not an LLM.",
    "openai": "Profiles: written by an LLM.",
}
_PROVENANCE_NOTES = {
    "leaky": "Leaky: the profiles have seen held-out interactions, so this comparison is no "
    "evidence.",
    "unknown": "Unknown provenance: it is not recorded which interactions the profiles were "
    "written from; they may have seen held-out ones.",
}
UNEQUAL_TERMS = "Not on equal terms, so not compared"
_ONE_SEED_NOTE = (
    "One seed decides nothing: the intervals cover the choice of users, not the chance in a "
    "training; five or more seeds or splits say more."
)
_TWO_REPLICATES_NOTE = (
    "Two replicates: two trainings hardly show how much trainings vary, so that only very large "
    "differences are detectable; five or more say more."
)
_ONE_SPLIT_NOTE = "One split: the intervals speak of users and seeds, not of other splits."
_SPLITS_NOTE = (
    "{} splits of one data set, whose rows overlap: the intervals speak of users, seeds and splits "
    "of this data set; settings were {}."
)
_CLAIMS_NOTE = (
    f"Verdicts: at most {LEVEL:.0%} of experiments have any false one; exploratory rows are "
    "estimates with unadjusted intervals."
)


def metric_name(metric: str, k: int | None) -> str:
    """`NDCG@10` for `("ndcg", 10)`, `AUC` for `("auc", None)`."""
    name = _METRICS.get(metric, class_name(metric))
    return name if k is None else f"{name}@{k}"


def class_name(model: str) -> str:
    """`AlphaRec` for `package.file:AlphaRec`, whose length would leave no room for figures."""
    return model.rpartition(":")[2]


def number(value: float | None) -> str:
    """Four decimals."""
    return NOTHING if value is None else f"{value:.4f}"


def mean_and_sd(mean: float, sd: float | None) -> str:
    """`0.3680 ± 0.0050`, or the mean alone for a single seed."""
    return number(mean) if sd is None else f"{mean:.4f} ± {sd:.4f}"


def percent(value: float | None) -> str:
    """Signed, one decimal."""
    return NOTHING if value is None else _minus(f"{round(value, 1) + 0.0:+.1f} %")


def interval(low: float | None, high: float | None, level: float | None = CONFIDENCE) -> str:
    """`[−0.0012, +0.0340]`, with its confidence where that is not 95 %."""
    if low is None or high is None:
        return NOTHING
    adjusted = "" if level in (None, CONFIDENCE) else f" at {100 * (level or 0):.4g} %"
    return _minus(f"[{low:+.4f}, {high:+.4f}]") + adjusted


def p_value(value: float | None) -> str:
    """Three decimals, or that it is below 0.001."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def effect(value: float | None) -> str:
    """Signed, two decimals."""
    return NOTHING if value is None else _minus(f"{round(value, 2) + 0.0:+.2f}")


def part(row: Row) -> str:
    """A slice and its bounds: `history, 1 coldest (10 to 21)`."""
    name = f"{row['kind']}, {row['slice']}"
    return name if row["low"] is None else f"{name} ({row['low']} to {row['high']})"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def kind(verdict: str) -> str:
    """The verdict's class: one of better, worse, same, incomparable."""
    same = (NO_DIFFERENCE, NO_TRANSFER, EXPLORATORY, NOT_ABOVE, NOT_TESTED)
    if verdict in (BETTER, WORSE):
        return verdict
    return "same" if verdict.startswith(same) else "incomparable"


def readable(row: Row, show_against: bool = False, show_point: bool = False) -> dict[str, str]:
    """A row as the columns that people read, in their order; its slice is named if it has one.

    `show_against` names the other arm, which may be no baseline, `show_point` the point of an
    experiment, or that several share both arms.
    """
    names = {"model": class_name(row["model"]), "arm": row["arm"]}
    if show_point:
        names = {"point": row.get("point") or _SHARED, **names}
    other, own = BASELINE, "with knowledge"
    if show_against:
        names["against"] = class_name(row["against"])
        other, own = "mean of the other", "mean of the arm"
    if "slice" in row:
        names["slice"] = part(row)
    return {
        **names,
        "metric": metric_name(row["metric"], row["k"]),
        other: mean_and_sd(row["baseline_mean"], row["baseline_sd"]),
        own: mean_and_sd(row["arm_mean"], row["arm_sd"]),
        "gain": percent(row["gain_percent"]),
        "difference (95 % CI)": interval(row["ci_low"], row["ci_high"], row["ci_level"]),
        "effect": effect(row["effect_size"]),
        "p (adjusted)": p_value(row["p_adjusted"]),
        "verdict": row["verdict"] + _LEAKY * (row.get("profile_provenance") == "leaky"),
    }


def listed(names: Sequence[str]) -> str:
    """`A, B and C`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def notes(rows: Sequence[Row]) -> list[str]:
    """Sentences that a reader must know beside the numbers."""
    found = [line for row in rows for line in (row.get("warnings") or "").splitlines()]
    found += [
        known[row[key]]
        for row in rows
        for key, known in (
            ("profile_source", _PROFILE_NOTES),
            ("profile_provenance", _PROVENANCE_NOTES),
        )
        if row.get(key) in known
    ]
    compared = [row for row in rows if row["difference"] is not None]
    splits = {row["splits"] for row in compared}
    replicates = {row["splits"] if row["splits"] > 1 else row["seeds"] for row in compared}
    trials = {row.get("search_trials") for row in compared}
    how = "fixed before" if trials == {0} else "searched within each split"
    return [
        *_incomparable(rows),
        *[_TWO_REPLICATES_NOTE] * (2 in replicates),
        *[_ONE_SEED_NOTE] * any(row["verdict"].startswith(ONE_SEED) for row in compared),
        *[_ONE_SPLIT_NOTE] * (1 in splits),
        *[_SPLITS_NOTE.format(n, how) for n in sorted(splits - {1})],
        *[_CLAIMS_NOTE] * any(row.get("claim") for row in compared),
        *dict.fromkeys(found),
    ]


def beyond_controls(rows: Sequence[Row]) -> list[str]:
    """Say what knowledge adds to each control, a line for each, from rows of `contrasts_all`."""
    lines: dict[tuple[str, str | None], list[str]] = {}
    by_llm = True
    for row in rows:
        arm, against = ARMS.get(row["arm"]), ARMS.get(row["against"])
        if not row["is_primary"] or arm is None or against is None or arm.takes != against.takes:
            continue
        if arm.is_treatment and against.is_control:
            found = interval(row["ci_low"], row["ci_high"], row["ci_level"])
            text = f"{class_name(row['model'])} {percent(row['gain_percent'])} {found}"
            lines.setdefault((against.name, row.get("point")), []).append(text)
            by_llm &= str(row.get("profile_source")).startswith(("llm-pack", "openai"))
    several = len({point for _, point in lines}) > 1
    title = f"What {'the LLM' if by_llm else 'knowledge'} adds (difference, 95 % CI):"
    return [title][: len(lines)] + [
        f"  to {against}{f' at {point}' if several else ''}: {', '.join(texts)}"
        for (against, point), texts in lines.items()
    ]


def worth(row: Row) -> str:
    """What knowledge adds over a control, over all nights, and its price: a row of `knowledge`."""
    low, high, level = row["running_ci_low"], row["running_ci_high"], row["ci_level"]
    paid, point = row["cost_usd"], row["usd_per_point"]
    bill = "an unknown cost" if paid is None else f"{paid:.2f} USD so far"
    each = "" if point is None else f", {point:.2f} USD per 0.01"
    gain = _minus(f"{row['running_difference']:+.4f}")
    name = metric_name(row["metric"], row["k"])
    what = f"{gain} {interval(low, high, level)} {name} to {row['against']}"
    return f"knowledge adds {what}, {row['nights']} measured nights, for {bill}{each}"


def warns(note: str) -> bool:
    """Whether a note names a weakness, rather than a fact."""
    return note != _PROFILE_NOTES["openai"]


def _incomparable(rows: Sequence[Row]) -> list[str]:
    """A loud note on arms that were not trained or scored on equal terms."""
    arms: dict[str, list[str]] = {}
    for row in rows:
        verdict, _, reason = row["verdict"].partition(": ")
        if verdict == NOT_COMPARABLE:
            point = f" ({row['point']})" if row.get("point") else ""
            arms.setdefault(reason, []).append(f"{row['model']} {row['arm']}{point}")
    return [
        f"{UNEQUAL_TERMS}: {reason}. It concerns {listed(list(dict.fromkeys(names)))}."
        for reason, names in arms.items()
    ]
