"""Which arms are compared with which, and the estimates over all runs of an experiment.

Every arm is compared with the baseline of its model; transfer with every other arm of its model,
for what is not due to the profiles; and every arm of a trained model with the reference models,
EASE first of all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from typing import Annotated, Any, TypeVar

import numpy as np

from models.config import BASELINE, TRANSFER, parse_metric
from models.recommenders.registry import entry
from models.statistics.comparability import Run, obstacle
from models.statistics.paired_comparison import Estimate, Values, compare, corrected

Column = tuple[str, int | None]
"""A metric and its cut-off."""
Arm = list[Run]
"""The runs of one model and arm, by seed."""
Arms = Mapping[tuple[str, str], Arm]
"""By model and arm."""
Points = Mapping[str | None, Sequence[Run]]
"""Runs by the point of an experiment; under None where there are no points."""
S = TypeVar("S")


@dataclass(frozen=True)
class Contrast:
    """One arm of one model on one metric, compared with its baseline or another arm."""

    model: str
    arm: str
    against: Annotated[str, "baseline, another arm of the model, or a reference model"]
    metric: str
    k: Annotated[int | None, "NULL for metrics without a cut-off"]
    is_primary: Annotated[bool, "whether this is evaluation.primary"]
    point: Annotated[
        str | None,
        "of an experiment; NULL where several points share both arms, and without points",
    ]
    estimate: Estimate

    def row(self) -> dict[str, Any]:
        """All fields side by side, as tables and JSON hold them."""
        facts = asdict(self)
        estimate: dict[str, Any] = facts.pop("estimate")
        return facts | estimate


@dataclass(frozen=True)
class _Pair:
    arm: Arm
    other: Arm
    against: str
    point: str | None = None


def contrasts(points: Points, columns: Sequence[Column], primary: str) -> list[Contrast]:
    """Compare arms over all seeds within each point: with the baseline, controls and references.

    Arms that several points share are compared once, under no point's name. P-values are
    corrected over all contrasts of a metric and cut-off, whatever their point.

    Args:
        points: runs by point.
        columns: metrics and cut-offs.
        primary: the metric that comes first, such as `ndcg@10`.

    Returns:
        Per metric and cut-off, the primary one first, one contrast per point, model, arm and
        other arm; none where the other is missing.
    """
    return _compared(_pairs(points, _all_pairs), columns, primary)


def slice_contrasts(
    slices: Mapping[S, Points], columns: Sequence[Column], primary: str
) -> dict[S, list[Contrast]]:
    """Compare arms with their baselines within each slice and point.

    P-values are corrected over all slices, points and arms of a metric and cut-off.
    """
    pairs = [
        (name, pair) for name, points in slices.items() for pair in _pairs(points, _with_baseline)
    ]
    found: dict[S, list[Contrast]] = {name: [] for name in slices}
    estimated = _compared([pair for _, pair in pairs], columns, primary)
    for (name, _), contrast in zip(cycle(pairs), estimated, strict=False):
        found[name].append(contrast)
    return found


def experiment_contrasts(
    points: Mapping[str | None, tuple[Sequence[Run], Sequence[Run]]], name: str, primary: str
) -> list[Contrast]:
    """Compare an experiment's arms with the same arms of the experiment `name`, point by point.

    On the metrics that all have; on none if they share no model and arm. Arms that several points
    share in both experiments are compared once, under no point's name.

    Args:
        points: by point, the runs of the one experiment and of the other.
        name: the other experiment's.
        primary: the metric that comes first.
    """
    pairs = _shared_once(
        _Pair(arm, others[key], name, point)
        for point, (runs, other_runs) in points.items()
        for others in [_by_arm(other_runs)]
        for key, arm in _by_arm(runs).items()
        if key in others
    )
    measured = [set(run.values.values) for pair in pairs for run in (*pair.arm, *pair.other)]
    columns = sorted(set.intersection(*measured), key=str) if measured else []
    return _compared(pairs, columns, primary)


def reference_models(arms: Iterable[tuple[str, str]]) -> list[str]:
    """Models that the others are compared with: computed ones, and those without transfer.

    Args:
        arms: model and arm of all that ran.
    """
    arms = list(arms)
    knowing = {model for model, arm in arms if arm != BASELINE}
    return [
        model
        for model, arm in arms
        if arm == BASELINE
        and (entry(model).loader is None or (bool(knowing) and model not in knowing))
    ]


def _pairs(points: Points, pairs_in: Callable[[Arms], Iterable[_Pair]]) -> list[_Pair]:
    return _shared_once(
        replace(pair, point=point)
        for point, runs in points.items()
        for pair in pairs_in(_by_arm(runs))
    )


def _shared_once(pairs: Iterable[_Pair]) -> list[_Pair]:
    """Every point's pairs; one that several points have stands once, under no point's name."""
    found: dict[tuple[object, ...], list[_Pair]] = {}
    for pair in pairs:
        both = (tuple(run.run_id for run in arm) for arm in (pair.arm, pair.other))
        found.setdefault((*both, pair.against), []).append(pair)
    return [same[0] if len(same) == 1 else replace(same[0], point=None) for same in found.values()]


def _by_arm(runs: Sequence[Run]) -> dict[tuple[str, str], Arm]:
    """Runs by model and arm, each in the order of seeds."""
    arms: dict[tuple[str, str], Arm] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        arms.setdefault((run.model, run.arm), []).append(run)
    return arms


def _all_pairs(arms: Arms) -> Iterator[_Pair]:
    yield from _with_baseline(arms)
    for (model, arm), runs in arms.items():
        if arm not in (BASELINE, TRANSFER) and (model, TRANSFER) in arms:
            yield _Pair(arms[model, TRANSFER], runs, arm)
    references = reference_models(arms)
    for (model, _), runs in arms.items():
        for reference in references if model not in references else ():
            yield _Pair(runs, arms[reference, BASELINE], reference)


def _with_baseline(arms: Arms) -> Iterator[_Pair]:
    for (model, arm), runs in arms.items():
        if arm != BASELINE and (model, BASELINE) in arms:
            yield _Pair(runs, arms[model, BASELINE], BASELINE)


def _compared(pairs: Sequence[_Pair], columns: Sequence[Column], primary: str) -> list[Contrast]:
    """Compare pairs of arms; p-values are corrected over all of them, column by column."""
    first = parse_metric(primary)
    reasons = [obstacle(pair.arm, pair.other, pair.against) for pair in pairs]
    found = []
    for column in sorted(columns, key=lambda column: column != first):
        family = [
            compare(
                _stacked(pair.arm, column),
                _stacked(pair.other, column),
                reason,
                less_is_better=column[0] == "logloss",
            )
            for pair, reason in zip(pairs, reasons, strict=True)
        ]
        found += [
            Contrast(
                pair.arm[0].model,
                pair.arm[0].arm,
                pair.against,
                *column,
                is_primary=column == first,
                point=pair.point,
                estimate=estimate,
            )
            for pair, estimate in zip(pairs, corrected(family), strict=True)
        ]
    return found


def _stacked(arm: Arm, column: Column) -> Values:
    """float64 (n_seeds, n_users); the means alone where users differ between seeds."""
    values = [run.values.values[column] for run in arm]
    if len({len(seed_values) for seed_values in values}) == 1:
        return np.stack(values)
    return np.array([[seed_values.mean()] for seed_values in values])
