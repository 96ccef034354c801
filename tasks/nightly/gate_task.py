"""Stage *gate*: challenger and champion on the same new holdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.arrow import Bools
from models.config import Evaluation, Metric, Nightly, parse_metric
from models.errors import BadInput
from models.evaluation.user_scores import UserValues, score
from models.publishing.promotion_gate import Decision, decide, first_champion, too_few_users
from models.report import wording
from models.schemas import ITEM, USER
from models.statistics.paired_comparison import Estimate, compare
from tasks.dataset.outputs import Interactions, Splits
from tasks.execution.stage import stage
from tasks.publishing.manifest import TRAIN, VALID, Manifest
from tasks.publishing.outputs import Judged
from tasks.publishing.rankings import SPLIT, overlap, rank_for
from tasks.storage.artifacts import MissingArtifact, read_parquet
from tasks.training.model_tables import Inputs
from tasks.training.outputs import Trained
from tasks.training.worker import TrainedModel, trained_model


@dataclass(frozen=True)
class _Holdout:
    """What both models are judged on.

    Neither has learnt from `held`; both may know `known`: train and valid. Never ranked are the
    `excluded` pairs: `known`, and the `seen` held-out ones that the champion has learnt from.
    """

    held: pa.Table
    known: pa.Table
    excluded: pa.Table
    catalogue: pa.Array
    seen: int


@stage("gate", version=3)
def gate(
    rule: Nightly,
    evaluation: Evaluation,
    challenger: Trained,
    parts: Splits,
    data: Interactions,
    champion: Manifest | None,
    anchor: Manifest | None = None,
) -> Judged:
    """Decide whether the challenger may replace the champion (see `promotion_gate.py`).

    Both rank the whole catalogue of today for the same users, without what is in train or valid.
    Held-out interactions that the champion has learnt from are left out for both: they are no
    candidates and no hits. Users that the champion does not know are not judged, only counted;
    items that it does not know are candidates that it cannot offer. The champion's judged model
    is compared, since the served one may have learnt from the holdout. Likewise the anchor's.

    Raises:
        BadInput: if the champion cannot be rebuilt, or no held-out user can be served.
    """
    metric, k = parse_metric(rule.metric or evaluation.primary)
    assert k is not None
    computed = with_metric(evaluation, metric, k)
    inputs = Inputs(parts.train, parts.valid, data.users, data.items, {})
    model = challenger.job, challenger.kept_weights, inputs
    ours, theirs, holdout = _both(model, champion, parts, data, computed)
    if not len(ours.users):
        raise BadInput(
            "nightly: nobody with held-out interactions has training interactions, so that the "
            "challenger cannot be judged. Change nightly.split.ratios, or bring more data."
        )
    decision, numbers = _decide(rule, (metric, k), ours, theirs, holdout.known)
    if anchor is not None:
        mine, others, _ = _both(model, anchor, parts, data, computed)
        found, _ = _compared(rule, (metric, k), mine, others) if others else (None, 0)
        if found is not None:
            numbers |= {"anchor_difference": found.difference, "anchor_ci_low": found.ci_low}
    remarks = ""
    if unknown := numbers.get("unknown_to_champion", 0):
        remarks = f"; {unknown} more users that only the challenger can serve are not judged"
    if holdout.seen:
        remarks += f"; {holdout.seen} held-out interactions that the champion has learnt from are "
        remarks += "left out for both"
    judged = Judged(
        decision=decision.outcome,
        reason=decision.reason + remarks,
        metric=metric,
        k=k,
        champion_version=champion and champion.version,
        anchor_version=anchor and anchor.version,
        metrics=_means(ours),
        champion_metrics=_means(theirs) if theirs else {},
        seen_by_champion=holdout.seen,
        **numbers,
    )
    get_run_logger().info("%s: %s", judged.decision, judged.reason)
    return judged


def _both(
    model: TrainedModel,
    other: Manifest | None,
    parts: Splits,
    data: Interactions,
    computed: Evaluation,
) -> tuple[UserValues, UserValues | None, _Holdout]:
    """The challenger's values and the other version's on what that one has not learnt from."""
    holdout = holdout_of(parts, data, other)
    ours = values_of(model, holdout, computed)
    if other is None:
        return ours, None, holdout
    with _whole(other):
        return ours, values_of(other.judged_model(), holdout, computed), holdout


def _decide(
    rule: Nightly,
    by: tuple[Metric, int],
    ours: UserValues,
    theirs: UserValues | None,
    known: pa.Table,
) -> tuple[Decision, dict[str, Any]]:
    """Pair the users that both can serve; the decision, and its numbers by `Judged`'s names."""
    name = wording.metric_name(*by)
    if theirs is None:
        mean, n = float(ours.values[by].mean()), len(ours.users)
        return first_champion(name, mean, n), {"challenger_mean": mean, "users": n}
    found, n = _compared(rule, by, ours, theirs)
    counts = {"users": n, "unknown_to_champion": len(ours.users) - n}
    if found is None:
        return too_few_users(n), counts
    cold, _ = _compared(rule, by, ours.where(_coldest(ours.users, known)), theirs)
    return decide(found, name, rule.confidence, rule.tolerance), {
        **counts,
        "champion_mean": found.baseline_mean,
        "challenger_mean": found.arm_mean,
        "difference": found.difference,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "cold_difference": cold and cold.difference,
        "cold_ci_high": cold and cold.ci_high,
    }


def _compared(
    rule: Nightly, by: tuple[Metric, int], ours: UserValues, theirs: UserValues
) -> tuple[Estimate | None, int]:
    """Challenger minus the other version over the users that both can serve, and how many.

    None for fewer than two.
    """
    users, mine, others = paired(by, ours, theirs)
    if len(users) < 2:
        return None, len(users)
    return compare(mine, others, confidence=rule.confidence), len(users)


def paired(by: tuple[Metric, int], ours: UserValues, theirs: UserValues) -> tuple[Any, Any, Any]:
    """The users that both can serve, and both's values: str (n,), float64 (1, n) twice."""
    shared = np.intersect1d(ours.users, theirs.users, assume_unique=True, return_indices=True)
    users, left, right = shared
    return users, ours.values[by][None, left], theirs.values[by][None, right]


def _coldest(users: NDArray[np.str_], known: pa.Table) -> Bools:
    """Mark the quarter with the fewest known interactions, and all with as few: bool (n,)."""
    counted = pc.value_counts(known[USER].combine_chunks())
    places = pc.index_in(pa.array(users, pa.string()), counted.field("values"))
    counts = np.asarray(pc.fill_null(counted.field("counts").take(places), 0))
    return np.asarray(counts <= np.quantile(counts, 0.25))


def with_metric(evaluation: Evaluation, metric: Metric, k: int) -> Evaluation:
    """The metrics and cut-offs to compute, the deciding one among them."""
    return Evaluation.model_validate(
        evaluation.model_dump()
        | {
            "metrics": tuple(dict.fromkeys((metric, *evaluation.metrics))),
            "k": tuple(dict.fromkeys((k, *evaluation.k))),
        }
    )


def holdout_of(parts: Splits, data: Interactions, champion: Manifest | None) -> _Holdout:
    """What a challenger is judged on, beside a champion if there is one."""
    held = read_parquet(parts.test).replace_schema_metadata(None)
    known = pa.concat_tables(
        read_parquet(part).replace_schema_metadata(None) for part in (parts.train, parts.valid)
    )
    seen: Bools = np.zeros(held.num_rows, dtype=np.bool_)
    if champion is not None:
        with _whole(champion):
            seen = overlap(held, [champion.handle(name) for name in (TRAIN, VALID)])
    spoilt = held.filter(pa.array(seen))
    return _Holdout(
        held=held.filter(pa.array(~seen)),
        known=known,
        excluded=pa.concat_tables([known, spoilt]).select([USER, ITEM]),
        catalogue=pc.unique(read_parquet(data.items, [ITEM])[ITEM]),
        seen=int(seen.sum()),
    )


@contextmanager
def _whole(champion: Manifest) -> Iterator[None]:
    """Say what to do where the champion's files are gone or altered."""
    try:
        yield
    except MissingArtifact as error:
        raise BadInput(
            f"the champion {champion.version} of {champion.experiment} cannot be judged: {error}. "
            "Go back with `llmkt champion rollback`, or remove the link `current` beside it to "
            "begin anew."
        ) from error


def values_of(model: TrainedModel, holdout: _Holdout, computed: Evaluation) -> UserValues:
    """A model's metrics per user; none for users that it has not learnt of."""
    rankings = rank_for(
        trained_model(*model),
        pc.unique(holdout.held[USER]),
        holdout.catalogue,
        holdout.known,
        holdout.excluded,
        max(computed.k),
    )
    if rankings.num_rows == 0:
        empty = np.zeros(0)
        return UserValues(np.zeros(0, dtype=np.str_), dict.fromkeys(computed.columns(), empty))
    return score(rankings, holdout.held, SPLIT, computed)


def _means(values: UserValues) -> dict[str, float]:
    """`{"ndcg@10": 0.21}`, empty where nobody was served."""
    if not len(values.users):
        return {}
    return {f"{metric}@{k}": float(per.mean()) for (metric, k), per in values.values.items()}
