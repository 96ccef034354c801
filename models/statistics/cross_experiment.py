"""Arms of one experiment held against the same arms of another."""

from collections.abc import Mapping, Sequence

from models.statistics.contrasts import (
    Bootstrap,
    Contrast,
    Pair,
    Run,
    arms_of,
    compared,
    shared_once,
)

Points = Mapping[str | None, tuple[Sequence[Run], Sequence[Run]]]
"""By point, the runs of the one experiment and of the other; None where neither has points."""


def across(points: Points, name: str, primary: str) -> list[Contrast]:
    """Compare an experiment's arms with the same arms of the experiment `name`, point by point.

    On the metrics that all have; on none if they share no model and arm. What several points
    share in both experiments is compared once, under no point's name.
    """
    pairs = shared_once(
        Pair(arm, others[key], name, point)
        for point, (runs, of_others) in points.items()
        for others in [arms_of(of_others)]
        for key, arm in arms_of(runs).items()
        if key in others
    )
    both = {run.name: run for pair in pairs for run in (*pair.arm, *pair.other)}
    measured = [set(run.values.values) for run in both.values()]
    columns = sorted(set.intersection(*measured), key=str) if measured else []
    return compared(pairs, columns, primary, Bootstrap([*both.values()], columns))
