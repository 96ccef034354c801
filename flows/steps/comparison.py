"""From trained models to their comparison and its report, for a run and for an experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.steps.stage_runner import StageRunner
from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.inputs import Part, PointResult, Trial
from tasks.evaluation.outputs import Evaluated, Reference
from tasks.execution.stage import StageRecord
from tasks.report.report_task import report


class Summary(BaseModel):
    """The result of a run: its stages, the comparison, and the report's path.

    `report` is None where every point of an experiment failed.
    """

    experiment: str
    stages: list[StageRecord]
    comparison: list[dict[str, Any]]
    """One row per arm, metric and cut-off; see `models.statistics.contrasts.Contrast.row`."""
    references: list[Reference]
    report: Path | None


def compare(
    experiment: str,
    parts: Sequence[Part],
    stages: StageRunner,
    points: Sequence[PointResult] = (),
    trials: Sequence[Trial] = (),
) -> Summary:
    """Evaluate trained models and report the comparison; see the stages of these names."""
    evaluated: Evaluated = stages.run(evaluation, experiment, parts, points, trials)
    page = _page(experiment, parts, evaluated, stages) if parts else None
    return Summary(
        experiment=experiment,
        stages=stages.records,
        comparison=[contrast.row() for contrast in evaluated.contrasts],
        references=list(evaluated.references),
        report=page,
    )


def _page(
    experiment: str, parts: Sequence[Part], evaluated: Evaluated, stages: StageRunner
) -> Path:
    """One report over all points: what they share once."""
    first = parts[0]
    pipeline = first.pipeline.model_copy(update={"experiment": experiment})
    trained = {model.model_dump_json(): model for part in parts for model in part.trained}
    described = {
        (side.side, side.embedded.embeddings.sha256): side
        for part in parts
        for side in part.described
    }
    records = list(stages.records)
    reported = stages.run(
        report, pipeline, evaluated, [*trained.values()], [*described.values()], records
    )
    return Path(reported.page.file)
