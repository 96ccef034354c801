"""Stage *grid-evaluation*: all points of an experiment, compared as one family of questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from prefect.artifacts import create_table_artifact
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from slugify import slugify

from models.evaluation.slices import Slice
from models.evaluation.user_scores import BASELINE
from models.report import wording
from models.statistics.contrasts import Contrast, contrasts, slice_contrasts
from tasks.embeddings.outputs import Described
from tasks.evaluation import result_rows
from tasks.evaluation.evaluation_task import calls
from tasks.evaluation.experiment_outputs import ExperimentEvaluated, Outcome, Part, Trial
from tasks.evaluation.result_rows import Scored
from tasks.evaluation.scoring import Ground, Scoring, references
from tasks.evaluation.store import digest, git_sha, store
from tasks.execution.cache_key import content
from tasks.execution.stage import stage
from tasks.results.database import database_path

_SCRIPTS = ("store_evaluation", "store_points")


@stage("grid-evaluation", version=3)
def grid_evaluation(
    experiment: str, parts: list[Part], outcomes: list[Outcome], trials: list[Trial]
) -> ExperimentEvaluated:
    """Score every run of every point, compare within points, write all of it to DuckDB.

    A run that several points share is scored and stored once. P-values are corrected over the
    whole experiment.

    Args:
        experiment: its name.
        parts: what the points trained; those that failed have none.
        outcomes: every point's, excluded ones included.
        trials: of the search, if there was one.

    Raises:
        BadInput: if no user can be scored, or the database stays busy.
    """
    scored = _Scores()
    for part in parts:
        scored.add(part)
    evaluated, tables = _evaluated(experiment, scored, outcomes, trials)
    tables |= {
        "new_points": _point_rows(evaluated, outcomes, scored),
        "new_trials": _trial_rows(evaluated, trials),
    }
    store(tables, _SCRIPTS if parts else _SCRIPTS[1:])
    get_run_logger().info(
        "%d points and %d runs written to %s", len(outcomes), len(scored.runs), database_path()
    )
    return evaluated


def show_in_prefect(evaluated: ExperimentEvaluated, outcomes: Sequence[Outcome]) -> None:
    """Leave points and comparison with the flow run, if this is one."""
    if FlowRunContext.get() is None:
        return
    key = slugify(evaluated.experiment)
    create_table_artifact(
        key=f"points-{key}",
        table=[of.model_dump() for of in outcomes],
        description=f"What became of the points of {evaluated.experiment}.",
    )
    found = [contrast.row() for contrast in evaluated.contrasts if contrast.is_primary]
    if found:
        create_table_artifact(
            key=f"comparison-{key}",
            table=[wording.readable(row, of_points=True) for row in found],
            description=" ".join(wording.notes(found)),
        )


@dataclass
class _Scores:
    """Scored runs: each once, and by point."""

    runs: dict[str, Scored] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    """By run id, the first part that has it."""
    points: dict[str, list[Scored]] = field(default_factory=dict)
    _grounds: dict[str, Ground] = field(default_factory=dict)
    _seen: dict[tuple[str, str], Scored] = field(default_factory=dict)

    def add(self, part: Part) -> None:
        """Score what is new of a part."""
        described = list(part.described)
        key = digest({"s": part.splits, "i": part.items, "d": [of.embedded for of in described]})
        if key not in self._grounds:
            self._grounds[key] = Ground.of(part.splits, part.items, described)
        scoring = Scoring(part.pipeline, described, self._grounds[key], part.search_trials)
        for trained in part.trained:
            run_id = scoring.run_id(trained)
            if (run_id, key) not in self._seen:
                self._seen[run_id, key] = scoring.score(trained)
            run = self._seen[run_id, key]
            self.runs.setdefault(run_id, run)
            self.parts.setdefault(run_id, part)
            self.points.setdefault(part.point, []).append(run)

    def owner(self, run_id: str) -> str | None:
        """The point that alone has a run; None where several have it."""
        owners = [
            point for point, runs in self.points.items() if run_id in {of.run_id for of in runs}
        ]
        return owners[0] if len(owners) == 1 else None

    def described(self, point: str | None, model: str, arm: str) -> list[Described]:
        """What an arm knows; for one that several points share, as the first of them has it."""
        for of_point, runs in self.points.items():
            for run in runs if point in (None, of_point) else ():
                job = run.trained.job
                if (job.model, job.arm) == (model, arm):
                    return list(self.parts[run.run_id].described)
        return []


def _evaluated(
    experiment: str, scored: _Scores, outcomes: Sequence[Outcome], trials: Sequence[Trial]
) -> tuple[ExperimentEvaluated, dict[str, pa.Table | pa.RecordBatchReader]]:
    run_ids = tuple(sorted(scored.runs))
    hashes = sorted({part.pipeline.digest() for part in scored.parts.values()})
    facts = {"outcomes": content(outcomes), "trials": content(trials), "runs": run_ids}
    found, by_slice, slices = _contrasts(scored)
    runs = list(scored.runs.values())
    evaluated = ExperimentEvaluated(
        experiment=experiment,
        evaluation_id=digest({"experiment": experiment, "config": hashes, **facts}),
        config_hash=digest({"config": hashes}),
        git_sha=git_sha(),
        run_ids=run_ids,
        contrasts=tuple(contrast for contrast in found if contrast.against == BASELINE),
        references=references(scored.parts[run_ids[0]].pipeline, runs) if runs else (),
        n_contrasts=len(found),
        n_slices=slices.num_rows,
        n_points=len(outcomes),
        n_trials=len(trials),
    )
    if not runs:
        return evaluated, {}
    return evaluated, {
        "new_runs": _run_rows(evaluated, scored),
        "new_metrics": result_rows.metric_rows(runs),
        "new_user_metrics": result_rows.user_metric_rows(runs),
        "new_epochs": result_rows.epoch_rows(runs),
        "new_slices": slices,
        "new_contrasts": _contrast_rows(evaluated, scored, found),
        "new_slice_contrasts": _slice_contrast_rows(evaluated, scored, by_slice),
        "new_llm_calls": calls(_every_described(scored)),
    }


def _contrasts(scored: _Scores) -> tuple[list[Contrast], dict[Slice, list[Contrast]], pa.Table]:
    runs = list(scored.runs.values())
    slices = result_rows.slice_rows(runs)
    if not runs:
        return [], {}, slices
    config = scored.parts[runs[0].run_id].pipeline.evaluation
    found = contrasts(
        {point: [run.run() for run in of] for point, of in scored.points.items()},
        config.columns(),
        config.primary,
    )
    kinds = dict.fromkeys(
        part for of in scored.points.values() for run in of for part in run.slices
    )
    by_slice = slice_contrasts(
        {
            kind: {
                point: [run.run(run.slices[kind]) for run in of if kind in run.slices]
                for point, of in scored.points.items()
            }
            for kind in kinds
        },
        config.columns(),
        config.primary,
    )
    return found, by_slice, slices


def _run_rows(evaluated: ExperimentEvaluated, scored: _Scores) -> pa.Table:
    tables = []
    for run_id, run in scored.runs.items():
        part = scored.parts[run_id]
        table = result_rows.run_rows(part.pipeline, evaluated, [run], list(part.described))
        point = pa.array([scored.owner(run_id)], pa.string())
        tables.append(table.append_column("point", point))
    return pa.concat_tables(tables, promote_options="permissive")


def _contrast_rows(
    evaluated: ExperimentEvaluated, scored: _Scores, found: Sequence[Contrast]
) -> pa.Table:
    pipeline = next(iter(scored.parts.values())).pipeline
    tables = [
        result_rows.contrast_rows(pipeline, evaluated, _described(scored, of), [of]) for of in found
    ]
    empty = result_rows.contrast_rows(pipeline, evaluated, [], [])
    return pa.concat_tables([*tables, empty], promote_options="permissive")


def _slice_contrast_rows(
    evaluated: ExperimentEvaluated, scored: _Scores, found: Mapping[Slice, Sequence[Contrast]]
) -> pa.Table:
    pipeline = next(iter(scored.parts.values())).pipeline
    tables = [
        result_rows.slice_contrast_rows(pipeline, evaluated, _described(scored, of), {kind: [of]})
        for kind, of_slice in found.items()
        for of in of_slice
    ]
    empty = result_rows.slice_contrast_rows(pipeline, evaluated, [], {})
    return pa.concat_tables([*tables, empty], promote_options="permissive")


def _described(scored: _Scores, of: Contrast) -> list[Described]:
    return scored.described(of.point, of.model, of.arm)


def _every_described(scored: _Scores) -> list[Described]:
    different = {
        digest({"profiled": of.profiled}): of
        for part in scored.parts.values()
        for of in part.described
    }
    return list(different.values())


def _point_rows(
    evaluated: ExperimentEvaluated, outcomes: Sequence[Outcome], scored: _Scores
) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "experiment": evaluated.experiment,
                "evaluation_id": evaluated.evaluation_id,
                **outcome.model_dump(),
                "run_ids": [run.run_id for run in scored.points.get(outcome.point, [])],
            }
            for outcome in outcomes
        ],
        schema=pa.schema(
            {
                **dict.fromkeys(
                    ("experiment", "evaluation_id", *Outcome.model_fields), pa.string()
                ),
                "run_ids": pa.list_(pa.string()),
            }
        ),
    )


def _trial_rows(evaluated: ExperimentEvaluated, trials: Sequence[Trial]) -> pa.Table:
    known = {"experiment": evaluated.experiment, "evaluation_id": evaluated.evaluation_id}
    types = {"trial": pa.int32(), "valid_score": pa.float64(), "is_best": pa.bool_()}
    names = (*known, *Trial.model_fields)
    return pa.Table.from_pylist(
        [known | trial.model_dump() for trial in trials],
        schema=pa.schema({name: types.get(name, pa.string()) for name in names}),
    )
