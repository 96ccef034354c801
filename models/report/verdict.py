"""An experiment in one sentence: whether knowledge helped, against what, and what it proves."""

from collections.abc import Sequence

from models.config import ARMS, BASELINE
from models.report.wording import Row, listed, metric_name, percent
from models.statistics.paired_comparison import BETTER, NO_DIFFERENCE, NOT_COMPARABLE, WORSE

_PHRASES = {
    BETTER: "better than its own baseline for {}",
    WORSE: "worse than its own baseline for {}",
    NO_DIFFERENCE: "without a detectable difference for {}",
    NOT_COMPARABLE: "not comparable for {}",
}
_DOUBTS = {
    "leaky": "This is no evidence, because the profiles have seen held-out interactions: ",
    "unknown": "If the profiles have seen no held-out interactions, which nothing here proves: ",
}


def verdict(rows: Sequence[Row], references: Sequence[str] = ()) -> str | None:
    """One honest sentence on the primary metric, None where nothing is compared.

    Args:
        rows: contrasts, with the keys of view `contrasts_all`.
        references: models without knowledge, the best first.
    """
    primary = [row for row in rows if row["is_primary"]]
    arm = main_arm(primary)
    if arm is None:
        return None
    own = [row for row in primary if row["arm"] == arm]
    against_baseline = [row for row in own if row["against"] == BASELINE]
    clauses = [
        _baseline(arm, against_baseline),
        _controls(own, [row for row in against_baseline if row["verdict"] == BETTER], references),
        _reference(arm, own, references),
    ]
    doubt = _DOUBTS.get(str(against_baseline[0].get("profile_provenance")), "")
    said = f"{doubt}{'; '.join(filter(None, clauses))}."
    return said[0].upper() + said[1:]


def main_arm(rows: Sequence[Row]) -> str | None:
    """The arm that an experiment is about: transfer, where it was run."""
    arms = [row["arm"] for row in rows if row["against"] == BASELINE]
    treatments = [arm.name for arm in ARMS.values() if arm.is_treatment and arm.name in arms]
    return next(iter([*treatments, *arms]), None)


def _baseline(arm: str, rows: Sequence[Row]) -> str:
    models: dict[str, list[str]] = {}
    for row in rows:
        found = row["verdict"].split(":")[0]
        shows = found in (BETTER, WORSE) and row["gain_percent"] is not None
        gain = f" ({percent(row['gain_percent'])})" if shows else ""
        models.setdefault(found, []).append(_named(row) + gain)
    said = [text.format(listed(models[key])) for key, text in _PHRASES.items() if key in models]
    return f"on {metric_name(rows[0]['metric'], rows[0]['k'])}, {arm} is {', '.join(said)}"


def _controls(own: Sequence[Row], better: Sequence[Row], references: Sequence[str]) -> str | None:
    """Whether gains are due to what profiles say; nothing where there are none."""
    if not better:
        return None
    held = [row for row in own if row["against"] not in (BASELINE, *references)]
    tested = [_named(row) for row in better if _named(row) in set(map(_named, held))]
    if not tested:
        return "no control was run, so the gain need not be due to what the profiles say"
    above = [
        name
        for name in tested
        if all(row["verdict"] == BETTER for row in held if _named(row) == name)
    ]
    if not above:
        return "none of these gains is above every control"
    return f"above every control, too, for {listed(above)}"


def _reference(arm: str, own: Sequence[Row], references: Sequence[str]) -> str | None:
    """Against the best model without knowledge."""
    best = next((name for name in references if any(r["against"] == name for r in own)), None)
    if best is None:
        return None
    above = [_named(r) for r in own if r["against"] == best and r["verdict"] == BETTER]
    if not above:
        return f"no model with {arm} is above {best}, the best reference"
    verb = "is" if len(above) == 1 else "are"
    return f"with it, {listed(above)} {verb} above {best}, the best reference"


def _named(row: Row) -> str:
    """The model, and the point of an experiment that it stands for."""
    point = row.get("point")
    return f"{row['model']} at {point}" if point else str(row["model"])
