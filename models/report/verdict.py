"""An experiment in one sentence: whether knowledge helped, compared with what, and its proof."""

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

    `rows` are of view `contrasts_all`; `references` are models without knowledge, the best first.
    """
    primary = [row for row in rows if row["is_primary"]]
    arm = main_arm(primary)
    if arm is None:
        return None
    own = [row for row in primary if row["arm"] == arm]
    with_baseline = [row for row in own if row["against"] == BASELINE]
    better = [_name(row) for row in with_baseline if row["verdict"] == BETTER]
    with_controls = [row for row in own if row["against"] not in (BASELINE, *references)]
    best = next((name for name in references if any(row["against"] == name for row in own)), None)
    clauses = [
        _baseline_clause(arm, with_baseline),
        _control_clause(better, with_controls) if better else "",
        _reference_clause(arm, [row for row in own if row["against"] == best], best),
    ]
    doubt = _DOUBTS.get(str(with_baseline[0].get("profile_provenance")), "")
    text = f"{doubt}{'; '.join(filter(None, clauses))}."
    return text[0].upper() + text[1:]


def main_arm(rows: Sequence[Row]) -> str | None:
    """The arm that an experiment is about: transfer, where it was run."""
    arms = [row["arm"] for row in rows if row["against"] == BASELINE]
    treatments = [arm.name for arm in ARMS.values() if arm.is_treatment and arm.name in arms]
    return next(iter([*treatments, *arms]), None)


def sentence(rows: Sequence[Row]) -> str:
    """The primary metric's verdicts, one sentence per arm, from rows of view `comparison`."""
    primary = [row for row in rows if row["is_primary"]]
    clauses = [
        _baseline_clause(arm, [row for row in primary if row["arm"] == arm])
        for arm in dict.fromkeys(row["arm"] for row in primary)
    ]
    return " ".join(f"{clause[0].upper()}{clause[1:]}." for clause in clauses)


def _baseline_clause(arm: str, rows: Sequence[Row]) -> str:
    models: dict[str, list[str]] = {}
    for row in rows:
        found = row["verdict"].split(":")[0]
        has_gain = found in (BETTER, WORSE) and row["gain_percent"] is not None
        gain = f" ({percent(row['gain_percent'])})" if has_gain else ""
        models.setdefault(found, []).append(_name(row) + gain)
    phrases = [text.format(listed(models[key])) for key, text in _PHRASES.items() if key in models]
    return f"on {metric_name(rows[0]['metric'], rows[0]['k'])}, {arm} is {', '.join(phrases)}"


def _control_clause(better: Sequence[str], rows: Sequence[Row]) -> str:
    """Whether gains come from what profiles say."""
    tested = [name for name in better if name in set(map(_name, rows))]
    if not tested:
        return "no control was run, so the gain need not be due to what the profiles say"
    short = {_name(row) for row in rows if row["verdict"] != BETTER}
    above = [name for name in tested if name not in short]
    if not above:
        return "none of these gains is above every control"
    return f"above every control, too, for {listed(above)}"


def _reference_clause(arm: str, rows: Sequence[Row], best: str | None) -> str:
    above = [_name(row) for row in rows if row["verdict"] == BETTER]
    if best is None:
        return ""
    if not above:
        return f"no model with {arm} is above {best}, the best reference"
    verb = "is" if len(above) == 1 else "are"
    return f"with it, {listed(above)} {verb} above {best}, the best reference"


def _name(row: Row) -> str:
    """The model, and the point of an experiment that it stands for."""
    point = row.get("point")
    return f"{row['model']} at {point}" if point else str(row["model"])
