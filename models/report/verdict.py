"""An experiment in one sentence: whether knowledge helped, compared with what, and its proof."""

from collections.abc import Sequence

from models.config import ARMS, BASELINE
from models.report.wording import Row, listed, metric_name, percent
from models.statistics.claims import BETTER, NO_DIFFERENCE, NO_TRANSFER, ONE_SEED, WORSE
from models.statistics.paired_comparison import EXPLORATORY, NOT_COMPARABLE

_PHRASES = {
    BETTER: "better than its own baseline for {}",
    WORSE: "worse than its own baseline for {}",
    NO_DIFFERENCE: "without a detectable difference for {}",
    NO_TRANSFER: "not chosen on validation for {}",
    ONE_SEED: "undecided from one seed for {}",
    EXPLORATORY: "estimated without a verdict for {}",
    NOT_COMPARABLE: "not comparable for {}",
}
_WITH_GAIN = (BETTER, WORSE, EXPLORATORY)
_DOUBTS = {
    "leaky": "This is no evidence, because the profiles have seen held-out interactions: ",
    "unknown": "If the profiles have seen no held-out interactions, which nothing here proves: ",
}


def verdict(rows: Sequence[Row]) -> str | None:
    """One honest sentence on the primary metric, None where nothing is compared.

    `rows` are of view `contrasts_all`; it says what their verdicts say, chain by chain.
    """
    primary = [row for row in rows if row["is_primary"]]
    arm = main_arm(primary)
    if arm is None:
        return None
    own = [row for row in primary if row["arm"] == arm]
    with_baseline = [row for row in own if row["against"] == BASELINE]
    better = [_name(row) for row in with_baseline if row["verdict"] == BETTER]
    clauses = [
        _baseline_clause(arm, with_baseline),
        _control_clause(better, own) if better else "",
        _reference_clause(arm, [row for row in own if row["claim"] == "C"]),
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
        has_gain = found in _WITH_GAIN and row["gain_percent"] is not None
        gain = f" ({percent(row['gain_percent'])})" if has_gain else ""
        models.setdefault(found, []).append(_name(row) + gain)
    phrases = [text.format(listed(models[key])) for key, text in _PHRASES.items() if key in models]
    where = " of one split" if rows[0]["splits"] == 1 else ""
    metric = metric_name(rows[0]["metric"], rows[0]["k"])
    return f"on {metric}{where}, {arm} is {', '.join(phrases)}"


def _control_clause(better: Sequence[str], rows: Sequence[Row]) -> str:
    """Whether gains come from what profiles say."""
    if not any(row["against"] in ARMS and ARMS[row["against"]].is_control for row in rows):
        return "no control was run, so the gain need not be due to what the profiles say"
    controls = [row for row in rows if row["claim"] == "B"]
    short = {_name(row) for row in controls if row["verdict"] != BETTER}
    tested = [name for name in better if name in set(map(_name, controls))]
    above = [name for name in tested if name not in short]
    if not tested:
        return ""
    if not above:
        return "none of these gains is above every control"
    return f"above every control, too, for {listed(above)}"


def _reference_clause(arm: str, rows: Sequence[Row]) -> str:
    above = [_name(row) for row in rows if row["verdict"] == BETTER]
    if not rows:
        return ""
    best = listed(list(dict.fromkeys(row["against"] for row in rows)))
    if not above:
        return f"no model with {arm} is above {best}, the best reference"
    verb = "is" if len(above) == 1 else "are"
    return f"with it, {listed(above)} {verb} above {best}, the best reference"


def _name(row: Row) -> str:
    """The model, and the point of an experiment that it stands for."""
    point = row.get("point")
    return f"{row['model']} at {point}" if point else str(row["model"])
