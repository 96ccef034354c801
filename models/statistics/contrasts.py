"""Which arms are held against which, and what comes of it over all of an experiment's runs.

Every arm is held against the baseline of its model; transfer against every other arm of its
model, for what is not due to the profiles; and every arm of a trained model against the models
that stand beside them as references, EASE first of all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from models.config import Metric, parse_metric
from models.evaluation.user_scores import BASELINE, UserValues
from models.recommenders.registry import entry
from models.statistics.bootstrap import Values, intervals, resampled_means
from models.statistics.comparability import BATCH_SIZE, Protocol, Terms, obstacle
from models.statistics.paired_comparison import Comparison, compare, corrected

TRANSFER = "transfer"

Column = tuple[str, int | None]
"""A metric and its cut-off."""
S = TypeVar("S")


@dataclass(frozen=True)
class Run:
    """One trained model: who it is, on which terms, and its values on test."""

    model: str
    arm: str
    seed: int
    terms: Terms
    values: UserValues
    run_id: str = ""
    """By which it is known again where several points of an experiment share it."""

    @property
    def name(self) -> object:
        """Unique among runs that are compared."""
        return self.run_id or id(self)


@dataclass(frozen=True)
class Contrast:
    """One arm of one model on one metric, held against its baseline or another arm.

    `against` is the other arm's name, or a reference model's; `point` the point of an experiment
    whose arms these are, None where there are no points, or several share both arms.
    """

    model: str
    arm: str
    against: str
    metric: str
    k: int | None
    is_primary: bool
    comparison: Comparison
    point: str | None = None


Arm = list[Run]
"""The runs of one model and arm, by seed."""


@dataclass(frozen=True)
class Pair:
    """Two arms, what the other is called, and the point of an experiment that they are of."""

    arm: Arm
    other: Arm
    against: str
    point: str | None = None

    @property
    def names(self) -> tuple[str, str, str]:
        """Model, arm and what it is held against."""
        return self.arm[0].model, self.arm[0].arm, self.against


def contrasts(
    runs: Sequence[Run], columns: Sequence[tuple[Metric, int | None]], primary: str
) -> list[Contrast]:
    """Compare arms over all seeds: against the baseline, controls and references.

    P-values are corrected over all contrasts of a metric and cut-off.

    Returns:
        Per metric and cut-off, the primary one first, one contrast per model, arm and what it
        is held against: first all that concern a baseline. None where the other is missing.
    """
    return compared(_all_pairs(arms_of(runs)), columns, primary, Bootstrap(runs, columns))


def grid_contrasts(
    points: Mapping[str | None, Sequence[Run]],
    columns: Sequence[tuple[Metric, int | None]],
    primary: str,
) -> list[Contrast]:
    """Compare arms within each point of an experiment, as `contrasts` does.

    What several points share is compared once, and p-values are corrected over the contrasts of
    all points.
    """
    pairs = shared_once(_by_point(points, _all_pairs))
    runs = {run.run_id: run for pair in pairs for run in (*pair.arm, *pair.other)}
    return compared(pairs, columns, primary, Bootstrap(list(runs.values()), columns))


def grid_slice_contrasts(
    slices: Mapping[S, Mapping[str | None, Sequence[Run]]],
    columns: Sequence[tuple[Metric, int | None]],
    primary: str,
) -> dict[S, list[Contrast]]:
    """Compare arms with their baselines within each slice and point, as `slice_contrasts` does."""
    pairs = {
        label: shared_once(_by_point(points, _against_baseline)) for label, points in slices.items()
    }
    return _by_label(pairs, columns, primary)


def _by_point(
    points: Mapping[str | None, Sequence[Run]],
    pairs_of: Callable[[Mapping[tuple[str, str], Arm]], Iterable[Pair]],
) -> Iterator[Pair]:
    for point, runs in points.items():
        for pair in pairs_of(arms_of(runs)):
            yield replace(pair, point=point)


def shared_once(pairs: Iterable[Pair]) -> list[Pair]:
    """Every point's pairs; one that several points have stands once, under no point's name."""
    found: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        both = (tuple(run.run_id for run in arm) for arm in (pair.arm, pair.other))
        found.setdefault((*both, pair.against), []).append(pair)
    return [same[0] if len(same) == 1 else replace(same[0], point=None) for same in found.values()]


def slice_contrasts(
    slices: Mapping[S, Sequence[Run]], columns: Sequence[tuple[Metric, int | None]], primary: str
) -> dict[S, list[Contrast]]:
    """Compare arms with their baselines within each slice.

    P-values are corrected over all slices and arms of a metric and cut-off.
    """
    pairs = {label: list(_against_baseline(arms_of(runs))) for label, runs in slices.items()}
    return _by_label(pairs, columns, primary)


def _by_label(
    pairs: Mapping[S, Sequence[Pair]],
    columns: Sequence[tuple[Metric, int | None]],
    primary: str,
) -> dict[S, list[Contrast]]:
    labels = [label for label, of_label in pairs.items() for _ in of_label]
    everything = [pair for of_label in pairs.values() for pair in of_label]
    found: dict[S, list[Contrast]] = {label: [] for label in pairs}
    for place, contrast in enumerate(compared(everything, columns, primary)):
        found[labels[place % len(labels)]].append(contrast)
    return found


def arms_of(runs: Sequence[Run]) -> dict[tuple[str, str], Arm]:
    """Runs by model and arm, each in the order of seeds."""
    arms: dict[tuple[str, str], Arm] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        arms.setdefault((run.model, run.arm), []).append(run)
    return arms


def _all_pairs(arms: Mapping[tuple[str, str], Arm]) -> list[Pair]:
    return [*_against_baseline(arms), *_against_arms(arms), *_against_references(arms)]


def _against_baseline(arms: Mapping[tuple[str, str], Arm]) -> Iterator[Pair]:
    for (model, arm), runs in arms.items():
        if arm != BASELINE and (model, BASELINE) in arms:
            yield Pair(runs, arms[model, BASELINE], BASELINE)


def _against_arms(arms: Mapping[tuple[str, str], Arm]) -> Iterator[Pair]:
    for (model, arm), runs in arms.items():
        if arm not in (BASELINE, TRANSFER) and (model, TRANSFER) in arms:
            yield Pair(arms[model, TRANSFER], runs, arm)


def _against_references(arms: Mapping[tuple[str, str], Arm]) -> Iterator[Pair]:
    references = reference_models(list(arms))
    for (model, _), runs in arms.items():
        for reference in references if model not in references else ():
            yield Pair(runs, arms[reference, BASELINE], reference)


def reference_models(arms: Sequence[tuple[str, str]]) -> list[str]:
    """Models that stand beside the others: computed ones, and those that no knowledge enters.

    Args:
        arms: model and arm of all that ran.
    """
    knowing = {model for model, arm in arms if arm != BASELINE}
    return [
        model
        for model, arm in arms
        if arm == BASELINE
        and (entry(model).loader is None or (bool(knowing) and model not in knowing))
    ]


class Bootstrap:
    """Means of runs over drawn users, from the same draws for all runs of the same users."""

    def __init__(self, runs: Sequence[Run], columns: Sequence[Column]) -> None:
        self._means: dict[tuple[object, Column], Values] = {}
        groups: dict[bytes, list[Run]] = {}
        for run in runs:
            groups.setdefault(run.values.users.tobytes(), []).append(run)
        for group in groups.values():
            keys = [(run.name, column) for run in group for column in columns]
            values = [run.values.values[column] for run in group for column in columns]
            self._means |= dict(zip(keys, resampled_means(values).T, strict=True))

    def of(self, arm: Arm, column: Column) -> Values:
        """float64 (resamples, n_seeds)."""
        return np.stack([self._means[run.name, column] for run in arm], axis=1)


def compared(
    pairs: Sequence[Pair],
    columns: Sequence[Column],
    primary: str,
    bootstrap: Bootstrap | None = None,
) -> list[Contrast]:
    """Compare pairs of arms; p-values are corrected over all of them, column by column."""
    first = parse_metric(primary)
    reasons = [_obstacle(pair) for pair in pairs]
    found = []
    for column in sorted(columns, key=lambda column: column != first):
        family = [
            _compare(pair, reason, column, bootstrap)
            for pair, reason in zip(pairs, reasons, strict=True)
        ]
        found += [
            Contrast(*pair.names, *column, column == first, of, pair.point)
            for pair, of in zip(pairs, corrected(family), strict=True)
        ]
    return found


def _obstacle(pair: Pair) -> str | None:
    for arm in (pair.arm, pair.other):
        if any(not np.array_equal(run.values.users, arm[0].values.users) for run in arm[1:]):
            return "users differ between seeds"
    same_model = pair.arm[0].model == pair.other[0].model
    return obstacle(
        _protocol(pair.arm),
        _protocol(pair.other),
        pair.against,
        ignoring=() if same_model else (BATCH_SIZE,),
    )


def _compare(
    pair: Pair, reason: str | None, column: Column, bootstrap: Bootstrap | None
) -> Comparison:
    found = compare(
        _stacked(pair.arm, column),
        _stacked(pair.other, column),
        reason,
        less_is_better=column[0] == "logloss",
    )
    if bootstrap is None or reason is not None:
        return found
    of_users, of_both = intervals(bootstrap.of(pair.arm, column), bootstrap.of(pair.other, column))
    return replace(
        found,
        users_ci_low=of_users[0],
        users_ci_high=of_users[1],
        boot_ci_low=of_both[0],
        boot_ci_high=of_both[1],
    )


def _stacked(arm: Arm, column: Column) -> Values:
    """float64 (n_seeds, n_users); the means alone where users differ between seeds."""
    values = [run.values.values[column] for run in arm]
    if len({len(of_seed) for of_seed in values}) == 1:
        return np.stack(values)
    return np.array([[of_seed.mean()] for of_seed in values])


def _protocol(arm: Arm) -> Protocol:
    return Protocol(
        seeds=tuple(run.seed for run in arm),
        users=arm[0].values.users,
        terms=tuple(run.terms for run in arm),
    )
