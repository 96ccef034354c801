"""Which arms are compared with which, and the estimates over all runs of an experiment.

Every arm is compared with the baseline of its model; an arm with knowledge with every control of
its model, for what is not due to the profiles, and with the reference models, as is the baseline.
Comparisons that a family claims get a verdict (`models.statistics.claims`); all others are
exploratory estimates.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from typing import Annotated, Any, TypeVar

import numpy as np

from models.arrow import Floats
from models.config import ARMS, BASELINE, parse_metric
from models.evaluation.user_scores import Column
from models.recommenders.registry import judged, reference_models
from models.statistics.claims import (
    NO_TRANSFER,
    ONE_SEED,
    UNDECIDED,
    Chain,
    Evidence,
    Step,
    decide,
    verdict,
)
from models.statistics.comparability import Run, common_users, obstacle
from models.statistics.paired_comparison import (
    CONFIDENCE,
    EXPLORATORY,
    Estimate,
    at_level,
    compare,
)

Arm = list[Run]
"""The runs of one model and arm, by split and seed."""
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
    claim: Annotated[
        str | None,
        "step of the model's chain: A against its baseline, B above every control, C above the "
        "best reference; NULL where exploratory",
    ]
    search_trials: Annotated[
        int | None,
        "settings that each arm tried on validation, within each split; 0: settings were fixed "
        "before; NULL where the arms differ",
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


def contrasts(
    points: Points, columns: Sequence[Column], primary: str, family: Sequence[Chain] = ()
) -> list[Contrast]:
    """Compare arms over all replicates within each point: with baseline, controls and references.

    Arms that several points share are compared once, under no point's name. `primary` is the metric
    that comes first and is claimed, such as `ndcg@10`; the claims, `family`, are declared before.

    Returns:
        Per metric and cut-off, the primary one first, one contrast per point, model, arm and other
        arm; none where the other is missing.
    """
    named = {other for chain in family for other in chain.steps.get("C", ())}
    pairs = _pairs(points, lambda arms: _all_pairs(arms, named))
    return _compared(pairs, columns, primary, family)


def slice_contrasts(
    slices: Mapping[S, Points], columns: Sequence[Column], primary: str
) -> dict[S, list[Contrast]]:
    """Compare arms with their baselines within each slice and point; exploratory."""
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

    On the metrics that all have, the primary one first; on none if they share no model and arm.
    Arms that several points share in both experiments are compared once, under no point's name.
    `points` has, by point, the runs of the one experiment and of the other.
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


def paired_values(runs: Sequence[Run], arm: str, column: Column) -> tuple[Floats, Floats] | None:
    """One model's arm and baseline, each float64 (n_replicates, n_users); None if unpaired."""
    arms = {name: found for (_, name), found in _by_arm(runs).items()}
    own, other = arms.get(arm), arms.get(BASELINE)
    if not own or not other or obstacle(own, other) or column not in own[0].values.values:
        return None
    return _stacked(own, column), _stacked(other, column)


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
    """Runs by model and arm, each in the order of splits and seeds."""
    arms: dict[tuple[str, str], Arm] = {}
    for run in sorted(runs, key=lambda run: run.replicate):
        arms.setdefault((run.model, run.arm), []).append(run)
    return arms


def _all_pairs(arms: Arms, named: Iterable[str]) -> Iterator[_Pair]:
    """What an experiment asks; `named` are references of the family, beside the usual ones."""
    yield from _with_baseline(arms)
    for (model, arm), runs in arms.items():
        for control in ARMS if ARMS[arm].is_treatment else ():
            if ARMS[control].is_control and (model, control) in arms:
                yield _Pair(runs, arms[model, control], control)
    usual = reference_models(arms)
    for (model, arm), runs in arms.items():
        knows = ARMS[arm].is_treatment
        references = [*usual, *sorted(set(named) - set(usual))] if knows else usual
        for reference in references if knows or (arm == BASELINE and model not in usual) else ():
            asked = reference != model and (model not in usual or reference in named)
            if asked and (reference, BASELINE) in arms:
                yield _Pair(runs, arms[reference, BASELINE], reference)


def _with_baseline(arms: Arms) -> Iterator[_Pair]:
    for (model, arm), runs in arms.items():
        if arm != BASELINE and (model, BASELINE) in arms:
            yield _Pair(runs, arms[model, BASELINE], BASELINE)


def _compared(
    pairs: Sequence[_Pair],
    columns: Sequence[Column],
    primary: str,
    family: Sequence[Chain] = (),
) -> list[Contrast]:
    """Compare pairs of arms on every column, and decide the family's claims on the primary one."""
    first = parse_metric(primary)
    reasons = [obstacle(pair.arm, pair.other, pair.against) for pair in pairs]
    found = []
    for column in sorted(columns, key=lambda column: column != first):
        estimates = [
            _estimate(pair, column, reason) for pair, reason in zip(pairs, reasons, strict=True)
        ]
        claims = [_claim(family, pair) if column == first else None for pair in pairs]
        estimates = _decided(family, pairs, claims, estimates, column)
        for pair, estimate, claim in zip(pairs, estimates, claims, strict=True):
            trials = {run.terms.search_trials for run in (*pair.arm, *pair.other)}
            found.append(
                Contrast(
                    pair.arm[0].model,
                    pair.arm[0].arm,
                    pair.against,
                    *column,
                    is_primary=column == first,
                    point=pair.point,
                    claim=claim and claim[1],
                    search_trials=trials.pop() if len(trials) == 1 else None,
                    estimate=estimate,
                )
            )
    return found


def _estimate(pair: _Pair, column: Column, reason: str | None) -> Estimate:
    """Estimate a difference; a single training of a stochastic model has no p-value."""
    arm, other = (_stacked(runs, column) for runs in (pair.arm, pair.other))
    found = replace(
        compare(arm, other, reason, less_is_better=column[0] == "logloss"),
        seeds=len({run.seed for run in pair.arm}),
        splits=len({run.terms.split_digest for run in pair.arm}),
    )
    if reason is not None:
        return found
    arms = pair.arm[0].arm, pair.other[0].arm
    no_transfer = all(run.alpha == 0 for run in pair.arm)
    if ARMS[arms[0]].is_treatment and arms[0] != arms[1] and no_transfer:
        return replace(found, p_value=None, verdict=NO_TRANSFER)
    single = len({run.replicate for run in pair.arm}) == 1
    if single and any(judged(runs[0].model).is_stochastic for runs in (pair.arm, pair.other)):
        return replace(found, p_value=None, verdict=f"{ONE_SEED}: {EXPLORATORY}")
    return found


def _claim(family: Sequence[Chain], pair: _Pair) -> tuple[int, Step] | None:
    """The chain, by its number in the family, and the step that a pair of arms belongs to."""
    run = pair.arm[0]
    for number, chain in enumerate(family):
        step = chain.step_of(run.arm, pair.against)
        if step and chain.model == run.model and pair.point in (chain.point, None):
            return number, step
    return None


def _decided(
    family: Sequence[Chain],
    pairs: Sequence[_Pair],
    claims: Sequence[tuple[int, Step] | None],
    estimates: Sequence[Estimate],
    column: Column,
) -> list[Estimate]:
    """Give the claims among estimates their verdicts; the others stay as they are."""
    places: dict[tuple[int, Step], list[int]] = {}
    for place, claim in enumerate(claims):
        if claim:
            places.setdefault(claim, []).append(place)
    evidence = {
        (number, step): _evidence(
            [estimates[place] for place in members], len(family[number].steps[step]), column
        )
        for (number, step), members in places.items()
    }
    decisions = decide(
        [
            [evidence.get((number, step), Evidence(None, False)) for step in chain.steps]
            for number, chain in enumerate(family)
        ]
    )
    found = list(estimates)
    for (number, step), members in places.items():
        decision = decisions[number][list(family[number].steps).index(step)]
        for place in members:
            own = estimates[place]
            if own.p_value is None:
                undecided = own.verdict.startswith(ONE_SEED)
                found[place] = replace(own, verdict=UNDECIDED) if undecided else own
                continue
            found[place] = replace(
                own,
                p_adjusted=decision.p_adjusted,
                verdict=verdict(step, evidence[number, step], decision),
            )
            differs = own.p_value < 1 - CONFIDENCE and not decision.rejected
            claimed = step == "A" or evidence[number, step].positive
            if claimed and differs and decision.level is not None:
                values = (_stacked(runs, column) for runs in (pairs[place].arm, pairs[place].other))
                found[place] = at_level(found[place], next(values), next(values), decision.level)
    return found


def _evidence(members: Sequence[Estimate], declared: int, column: Column) -> Evidence:
    """What a step's comparisons say together: the largest p, and whether all are gains.

    Nothing where one of them is missing or undecided.
    """
    sign = -1 if column[0] == "logloss" else 1
    known = [each.p_value for each in members if each.p_value is not None]
    gains = all(sign * (each.difference or 0.0) > 0 for each in members)
    return Evidence(max(known) if len(known) == declared else None, gains)


def _stacked(arm: Arm, column: Column) -> Floats:
    """float64 (n_replicates, n_users): splits, each the mean over its seeds; or seeds of one split.

    Degrees of freedom follow the splits where there are several; of the users, those scored in
    every split count. The means alone where users differ between the seeds of a split.
    """
    common = common_users(arm)
    by_split: dict[str, list[Floats]] = {}
    for run in arm:
        values = run.values.values[column]
        if len(values) != len(common):
            values = values[np.isin(run.values.users, common)]
        by_split.setdefault(run.terms.split_digest, []).append(values)
    rows = list(by_split.values())
    if len({len(values) for of_split in rows for values in of_split}) != 1:
        return np.array([[values.mean()] for of_split in rows for values in of_split])
    if len(rows) == 1:
        return np.stack(rows[0])
    return np.stack([np.mean(of_split, axis=0) for of_split in rows])
