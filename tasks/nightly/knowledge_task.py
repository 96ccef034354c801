"""Stage *knowledge*: what texts add to the nightly model, and what a point of that has cost.

Challenger, baseline and shuffled challenger have learnt from the same interactions, on equal terms,
and are scored on the same holdout. No decision depends on it.
"""

from typing import Any

from prefect.logging import get_run_logger

from models.config import BASELINE, Pipeline, parse_metric
from models.publishing.promotion_gate import JUDGED
from models.report import wording
from models.statistics.paired_comparison import compare, over_nights
from tasks.dataset.outputs import Interactions
from tasks.evaluation.inputs import Part
from tasks.execution.stage import always
from tasks.nightly.alerts import emit
from tasks.nightly.gate_task import holdout_of, paired, values_of, with_metric
from tasks.nightly.promotion_log import measured, promotions, store
from tasks.publishing.outputs import Promotion
from tasks.results.queries import Rows
from tasks.training.model_tables import Inputs

_POINT = 0.01
_TONIGHT = ("users", "difference", "ci_low", "ci_high", "ci_level")


def is_due(pipeline: Pipeline, row: Promotion) -> bool:
    """Whether enough challengers were judged since knowledge was measured, tonight's included."""
    rule = pipeline.nightly
    last = [night["decided_at"] for night in measured(row.experiment)[:1]]
    judged = [
        night
        for night in promotions(row.experiment)
        if night["decision"] in JUDGED and all(night["decided_at"] > at for at in last)
    ]
    return rule.arm != BASELINE and 0 < rule.knowledge.every <= len(judged)


@always("knowledge")
def knowledge(part: Part, data: Interactions, row: Promotion) -> Rows:
    """Compare a night's challenger with its controls; record it, and alarm if it adds too little.

    `part` has one model per arm, `row` is tonight's.

    Returns:
        Rows of the table `knowledge`, one per control; none for a holdout of fewer than two users.
    """
    rule, trained, splits = part.pipeline.nightly, part.trained, part.splits
    metric, k = parse_metric(rule.metric or part.pipeline.evaluation.primary)
    assert k is not None
    computed = with_metric(part.pipeline.evaluation, metric, k)
    inputs = Inputs(splits.train, splits.valid, data.users, data.items, {})
    holdout = holdout_of(splits, data, None)
    values = {
        model.job.arm: values_of((model.job, model.weights, inputs), holdout, computed)
        for model in trained
    }
    ours = values.pop(rule.arm)
    known = {"model": trained[0].job.model, "arm": rule.arm, "metric": metric, "k": k}
    rows: Rows = []
    for against, theirs in values.items():
        users, mine, others = paired((metric, k), ours, theirs)
        if len(users) > 1:
            tonight = compare(mine, others, confidence=rule.confidence)
            each = dict(zip(users.tolist(), (mine - others)[0].tolist(), strict=True))
            over = _over_all(row, known | {"against": against}, each, rule.confidence)
            rows.append(over | {name: getattr(tonight, name) for name in _TONIGHT})
    store("knowledge", [found | {"differences": [*found["differences"].items()]} for found in rows])
    for found in rows:
        words = wording.worth(found)
        get_run_logger().info(words)
        if found["running_ci_high"] < rule.knowledge.at_least:
            reason = f"{words}; at least {rule.knowledge.at_least:g} is wanted"
            emit("llmkt.alert.knowledge", row.experiment, reason, row)
    return rows


def _over_all(
    row: Promotion, known: dict[str, Any], tonight: dict[str, float], confidence: float
) -> dict[str, Any]:
    """The row of one control, with the interval over all its nights and what they have cost.

    `tonight` has differences by user.
    """
    at = row.model_dump(include={"experiment", "decided_at"})
    nights = [tonight] + [
        night["differences"]
        for night in measured(row.experiment)
        if night["decided_at"] != row.decided_at and known.items() <= night.items()
    ]
    mean, low, high = over_nights(nights, confidence)
    judged = promotions(row.experiment)
    paid = [night["cost_usd"] for night in judged if night["decision"] in JUDGED]
    cost = None if None in paid else sum(paid)
    return {
        **(at | known),
        "differences": tonight,
        "nights": len(nights),
        "running_difference": mean,
        "running_ci_low": low,
        "running_ci_high": high,
        "cost_usd": cost,
        "usd_per_point": None if cost is None or mean <= 0 else cost * _POINT / mean,
    }
