"""The rows of the results database that a report shows, and its leaderboard."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from models.config import BASELINE
from models.recommenders.registry import ELSEWHERE, judged
from models.report.charts.parameter_sweeps import FACTORS
from tasks.results.database import database
from tasks.results.queries import Rows, select
from tasks.storage.sql_scripts import script


@dataclass(frozen=True)
class StoredEvaluation:
    """One evaluation as the database holds it.

    Attributes:
        runs: table `runs`, with `value`, `coverage` and `novelty` on test; `config` is parsed.
        contrasts: view `contrasts_all`, the primary metric first.
        slices: view `slice_comparison`, of the primary metric.
    """

    runs: Rows
    contrasts: Rows
    slices: Rows


def stored(experiment: str, run_ids: Sequence[str], metric: str, k: int | None) -> StoredEvaluation:
    """Read the rows of an evaluation; `metric` is the primary one and `k` its cut-off."""
    own = {"experiment": experiment}
    with database(read_only=True) as connection:
        asked = {"run_ids": list(run_ids), "metric": metric, "k": k}
        runs = select(connection, script("report/report_runs"), **asked)
        contrasts = select(connection, "FROM contrasts_all WHERE experiment = $experiment", **own)
        slices = select(
            connection, "FROM slice_comparison WHERE experiment = $experiment AND is_primary", **own
        )
    runs = [{**run, "config": json.loads(run["config"])} for run in runs]
    return StoredEvaluation(runs, contrasts, slices)


def leaderboard(
    found: StoredEvaluation, references: Collection[str], less_is_better: bool = False
) -> Rows:
    """One row per model and arm, best first, with its contrast with the baseline.

    An arm that was run at several points of an experiment has a row for each, never an average.
    Runs without a point that differ in alpha, layer, alignment or reduction stand apart, too, but
    without a contrast, which would be one of all of them together. `references` are models that
    stand beside the others.
    """
    contrasts = {
        (row["model"], row["arm"], row["point"]): row
        for row in found.contrasts
        if row["is_primary"] and row["against"] == BASELINE
    }
    arms: dict[tuple[str, str], dict[tuple[str, ...], Rows]] = {}
    for run in found.runs:
        settings = arms.setdefault((run["model"], run["arm"]), {})
        settings.setdefault(_settings(run), []).append(run)
    rows = [
        {
            "model": model,
            "arm": arm,
            "kind": "trained elsewhere"
            if judged(model) is ELSEWHERE
            else ("reference" if model in references else arm),
            "mean": fmean(run["value"] for run in runs),
            "sd": stdev(run["value"] for run in runs) if len(runs) > 1 else None,
            "point": ", ".join(setting) if len(settings) > 1 else "",
            "contrast": contrasts.get((model, arm, point))
            if point is not None or len(settings) == 1
            else None,
            "coverage": _mean(runs, "coverage"),
            "novelty": _mean(runs, "novelty"),
        }
        for (model, arm), settings in arms.items()
        for setting, runs in settings.items()
        for point in [runs[0]["point"]]
    ]
    return sorted(rows, key=lambda row: row["mean"], reverse=not less_is_better)


def _settings(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The difference between an arm's runs besides the seed."""
    if run["point"] is not None:
        return (run["point"],)
    return tuple(str(run[factor]) for factor in FACTORS if run[factor] is not None)


def _mean(runs: Rows, column: str) -> float | None:
    values = [run[column] for run in runs]
    return None if None in values else fmean(values)
