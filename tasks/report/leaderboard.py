"""What the report reads from the results database, and how it becomes a leaderboard."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from models.config import BASELINE
from models.report.charts.parameter_sweeps import FACTORS
from tasks.evaluation.outputs import Evaluated
from tasks.results.database import database
from tasks.results.queries import Rows, select

_RUNS = Path(__file__).parent / "sql" / "report_runs.sql"


@dataclass(frozen=True)
class Stored:
    """One evaluation as the database holds it.

    Attributes:
        runs: table `runs`, with `value`, `coverage` and `novelty` on test; `config` is parsed.
        contrasts: view `contrasts_all`, the primary metric first.
        slices: view `slice_comparison`, of the primary metric.
    """

    runs: Rows
    contrasts: Rows
    slices: Rows


def stored(evaluated: Evaluated, metric: str, k: int | None) -> Stored:
    """Read what an evaluation has written.

    Args:
        evaluated: the evaluation.
        metric: the primary metric.
        k: its cut-off.
    """
    with database(read_only=True) as connection:
        runs = select(
            connection, _RUNS.read_text(), run_ids=list(evaluated.run_ids), metric=metric, k=k
        )
        contrasts, slices = (
            select(connection, f"FROM {rows}", experiment=evaluated.experiment)
            for rows in (
                "contrasts_all WHERE experiment = $experiment",
                "slice_comparison WHERE experiment = $experiment AND is_primary",
            )
        )
    return Stored([{**run, "config": json.loads(run["config"])} for run in runs], contrasts, slices)


def leaderboard(found: Stored, references: Collection[str], less_is_better: bool = False) -> Rows:
    """One row per model and arm, best first, with its contrast against the baseline.

    An arm that was run at several points of an experiment has a row for each, never an average.
    Runs without a point that differ in alpha, layer, alignment or reduction stand apart, too, but
    without a contrast, which would be one of all of them together.

    Args:
        found: an evaluation.
        references: models that stand beside the others.
        less_is_better: as of LogLoss.
    """
    against = {
        (row["model"], row["arm"], row["point"]): row
        for row in found.contrasts
        if row["is_primary"] and row["against"] == BASELINE
    }
    groups: dict[tuple[str, str], dict[tuple[Any, ...], Rows]] = {}
    for run in found.runs:
        points = groups.setdefault((run["model"], run["arm"]), {})
        points.setdefault(_point(run), []).append(run)
    rows = [
        {
            "model": model,
            "arm": arm,
            "kind": "reference" if model in references else arm,
            "mean": fmean(run["value"] for run in runs),
            "sd": stdev(run["value"] for run in runs) if len(runs) > 1 else None,
            "seeds": len(runs),
            "point": ", ".join(point) if len(points) > 1 else "",
            "contrast": _contrast(against, model, arm, runs[0]["point"], len(points)),
            **{of: _mean(runs, of) for of in ("coverage", "novelty")},
        }
        for (model, arm), points in groups.items()
        for point, runs in points.items()
    ]
    return sorted(rows, key=lambda row: row["mean"], reverse=not less_is_better)


def _point(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells an arm's runs apart besides the seed."""
    if run["point"] is not None:
        return (run["point"],)
    return tuple(str(run[of]) for of in FACTORS if run[of] is not None)


def _contrast(
    against: Mapping[tuple[Any, ...], dict[str, Any]],
    model: str,
    arm: str,
    point: str | None,
    points: int,
) -> dict[str, Any] | None:
    """The contrast of a point's own runs; a point's runs alone must have made it."""
    return against.get((model, arm, point)) if point is not None or points == 1 else None


def _mean(runs: Rows, column: str) -> float | None:
    values = [run[column] for run in runs]
    return None if None in values else fmean(values)
