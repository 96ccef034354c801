"""Stage *knowledge*: what texts add to the nightly model, and what a point of that has cost.

Challenger, baseline and shuffled challenger have learnt from the same interactions, on equal terms,
and are scored on the same holdout. No decision depends on it.
"""

from typing import Any

from models.config import BASELINE, Pipeline
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
from tasks.training.model_tables import Inputs

_POINT = 0.01


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
def knowledge(part: Part, data: Interactions, row: Promotion) -> None:
    """Compare tonight's challenger with its controls, and record it: `part` has a model per arm."""
    rule, splits = part.pipeline.nightly, part.splits
    computed = with_metric(part.pipeline.evaluation, row.metric, row.k)
    inputs = Inputs(splits.train, splits.valid, data.users, data.items, {})
    holdout = holdout_of(splits, data, None)
    values = {
        model.job.arm: values_of((model.job, model.kept_weights, inputs), holdout, computed)
        for model in part.trained
    }
    ours, model, rows = values.pop(rule.arm), part.trained[0].job.model, []
    for against, theirs in values.items():
        users, mine, others = paired((row.metric, row.k), ours, theirs)
        if len(users) < 2:
            continue
        found = row.model_dump() | vars(compare(mine, others, confidence=rule.confidence))
        found |= {"model": model, "arm": rule.arm, "against": against}
        found["differences"] = [*zip(users.tolist(), (mine - others)[0].tolist(), strict=True)]
        rows.append(found | _over_all(found))
    store("knowledge", rows)
    for found in rows:
        if found["running_ci_high"] < rule.knowledge.at_least:
            reason = f"{wording.worth(found)}; at least {rule.knowledge.at_least:g} is wanted"
            emit("llmkt.alert.knowledge", row.experiment, reason, row)


def _over_all(tonight: dict[str, Any]) -> dict[str, Any]:
    """The interval over all nights of tonight's model and control, and what they have cost."""
    same = {name: tonight[name] for name in ("model", "arm", "against", "metric", "k")}
    nights = [dict(tonight["differences"])] + [
        night["differences"]
        for night in measured(tonight["experiment"])
        if same.items() <= night.items()
    ]
    mean, low, high = over_nights(nights, tonight["ci_level"])
    judged = promotions(tonight["experiment"])
    paid = [night["cost_usd"] for night in judged if night["decision"] in JUDGED]
    cost = None if None in paid else sum(paid)
    return {
        "nights": len(nights),
        "running_difference": mean,
        "running_ci_low": low,
        "running_ci_high": high,
        "cost_usd": cost,
        "usd_per_point": None if cost is None or mean <= 0 else cost * _POINT / mean,
    }
