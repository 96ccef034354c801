"""The report's page: what it shows, gathered from a run's hand-offs and the database."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.config import ARMS, BASELINE, Pipeline, parse_metric
from models.report import verdict, wording
from models.report.charts import (
    forest_plot,
    learning_curves,
    parameter_sweeps,
    profile_scatter,
)
from tasks.embeddings.outputs import Described
from tasks.evaluation.outputs import Evaluated
from tasks.execution.stage_record import StageRecord
from tasks.report import run_facts
from tasks.report.leaderboard import Stored, leaderboard, stored
from tasks.report.outputs import Mapped
from tasks.results.queries import Rows
from tasks.storage.artifacts import read_parquet
from tasks.training.outputs import Trained

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Made:
    """All that a run has made, as the report stage is given it."""

    pipeline: Pipeline
    evaluated: Evaluated
    trained: Sequence[Trained]
    described: Sequence[Described]
    maps: Sequence[Mapped]
    stages: Sequence[StageRecord]


def page_of(made: Made) -> bytes:
    """The page as UTF-8: one file with its own styles, scripts and charts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    metric, k = parse_metric(made.pipeline.evaluation.primary)
    found = stored(made.evaluated, metric, k)
    page = environment.get_template("report.html.j2").render(
        pipeline=made.pipeline,
        trained=made.trained,
        primary=wording.metric_name(metric, k),
        k=k,
        words=wording,
        configuration=as_yaml(made.pipeline.model_dump(mode="json")),
        plotly=_plotly(),
        **_comparison(made, found, metric),
        **_charts(made, found, wording.metric_name(metric, k)),
        **run_facts.facts(made.evaluated, made.trained, made.described),
        calls=run_facts.calls(made.described),
        stages=run_facts.stages(made.stages, made.trained),
        configurations=_configurations(made.pipeline, found.runs),
    )
    return page.encode()


def as_yaml(value: Any) -> str:
    """As people write it: in the given order, with text as it is."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _comparison(made: Made, found: Stored, metric: str) -> dict[str, Any]:
    """Tables: the leaderboard, contrasts by what they are against, and slices."""
    references = [of.model for of in made.evaluated.references]
    primary = [row for row in found.contrasts if row["is_primary"]]
    held = [row["against"] for row in primary]
    beside = [name for name in dict.fromkeys(held) if name in made.pipeline.models]
    own = [row for row in found.contrasts if row["against"] == BASELINE]
    return {
        "rows": own,
        "sentence": verdict.verdict(found.contrasts, [*references, *beside]),
        "others": wording.sentence([row for row in own if row["arm"] != verdict.main_arm(own)]),
        "notes": wording.notes(own),
        "references": [
            wording.reference(of.model, of.metric, of.k, of.mean, of.sd)
            for of in made.evaluated.references
        ],
        "leaderboard": leaderboard(found, {*references, *beside}, metric == "logloss"),
        "gains": _gains(primary, beside),
        "contrasts": found.contrasts,
        "metrics": dict.fromkeys(
            wording.metric_name(row["metric"], row["k"]) for row in found.contrasts
        ),
        "verdicts": dict.fromkeys(row["verdict"].split(":")[0] for row in found.contrasts),
        "slices": [
            Group(kind, _SLICES.get(kind, ""), rows, forest_plot.scale(rows))
            for kind in dict.fromkeys(row["kind"] for row in found.slices)
            for rows in [[row for row in found.slices if row["kind"] == kind]]
        ],
        "strip": forest_plot.gain,
    }


@dataclass(frozen=True)
class Group:
    """Rows of one table with strips, and the scale that they share."""

    title: str
    hint: str
    rows: Rows
    scale: forest_plot.Scale | None


_SLICES = {
    "history": "Users by quarters of their training interactions.",
    "popularity": "Held-out items of the head, the fewest that hold 80 % of the training "
    "interactions, or of the tail.",
    "profile": "Users with a profile, and without.",
}


def _gains(primary: Rows, references: Sequence[str]) -> list[Group]:
    groups: dict[str, tuple[str, Rows]] = {
        "Against its own baseline": ("What knowledge is worth to the model.", []),
        "Against the controls": (
            "The same transfer, of something other than the profiles: what a gain above them "
            "owes to what the profiles say.",
            [],
        ),
        "Against the references": ("Models that know nothing of profiles.", []),
    }
    for row in primary:
        if row["against"] == BASELINE:
            place = "Against its own baseline"
        elif row["against"] in references:
            place = "Against the references"
        else:
            place = "Against the controls"
        groups[place][1].append(row)
    return [
        Group(title, hint, rows, forest_plot.scale(rows))
        for title, (hint, rows) in groups.items()
        if rows
    ]


def _charts(made: Made, found: Stored, label: str) -> dict[str, Any]:
    courses = [learning_curves.Course(run.job, run.epochs, run.best_epoch) for run in made.trained]
    return {
        "curves": learning_curves.learning_curves(courses),
        "valid_metric": parse_metric(made.pipeline.training.valid_metric),
        "arms": {run.job.arm: ARMS[run.job.arm].colour for run in made.trained},
        "sweeps": parameter_sweeps.sweeps(found.runs, label),
        "maps": [_map(of) for of in made.maps],
    }


def _map(mapped: Mapped) -> dict[str, Any]:
    points = [
        profile_scatter.Point(row["id"], row["x"], row["y"], row["genre"], row["text"])
        for row in read_parquet(mapped.points).to_pylist()
    ]
    drawn, marks = profile_scatter.profile_map(points)
    return {"of": mapped, "figure": drawn, "marks": marks}


def _configurations(pipeline: Pipeline, runs: Rows) -> list[dict[str, Any]]:
    """Every run's own part, and where its configuration differs from the pipeline's."""
    shared = as_yaml(pipeline.identity())
    return [
        {
            **run,
            "job": as_yaml(run["config"].get("job", {})),
            "diff": run_facts.diff(
                shared, as_yaml({k: v for k, v in run["config"].items() if k != "job"})
            ),
        }
        for run in runs
    ]


def _plotly() -> str:
    """Plotly's own script, gzipped, as base64: a third of its size, unpacked by the browser."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode()
