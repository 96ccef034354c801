"""The report's page, from a run's hand-offs and the database."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.config import ARMS, BASELINE, Pipeline, parse_metric
from models.plain_text import as_json
from models.report import verdict, wording
from models.report.charts import forest_plot
from models.report.charts.learning_curves import Course, learning_curves
from models.report.charts.parameter_sweeps import sweeps
from tasks.embeddings.outputs import Described
from tasks.evaluation.outputs import Evaluated
from tasks.execution.stage import StageRecord
from tasks.report import run_facts
from tasks.report.leaderboard import StoredEvaluation, leaderboard, stored
from tasks.results.queries import Rows
from tasks.training.outputs import Trained

_TEMPLATES = Path(__file__).parent / "templates"


def page(
    pipeline: Pipeline,
    evaluated: Evaluated,
    trained: Sequence[Trained],
    described: Sequence[Described],
    stages: Sequence[StageRecord],
) -> bytes:
    """Render the page as UTF-8: one file with its own styles, scripts and charts."""
    metric, k = parse_metric(pipeline.evaluation.primary)
    primary = wording.metric_name(metric, k)
    found = stored(evaluated.experiment, evaluated.run_ids, metric, k)
    html = rendered(
        _TEMPLATES,
        "report.html.j2",
        pipeline=pipeline,
        trained=trained,
        primary=primary,
        k=k,
        words=wording,
        configuration=as_yaml(pipeline.model_dump(mode="json")),
        plotly=_plotly(),
        **_comparison(pipeline, evaluated, found, metric),
        curves=learning_curves([Course(run.job, run.epochs, run.best_epoch) for run in trained]),
        valid_metric=parse_metric(pipeline.training.valid_metric),
        arms={run.job.arm: ARMS[run.job.arm].colour for run in trained},
        sweeps=sweeps(found.runs, primary),
        **run_facts.facts(evaluated, trained, described),
        calls=run_facts.calls(described),
        stages=run_facts.stages(stages, trained),
        configurations=_configurations(pipeline, found.runs),
    )
    return html.encode()


def rendered(folder: Path, template: str, **given: Any) -> str:
    """Render a template; values are escaped in HTML and, by a given `finalize`, elsewhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=template.endswith(".html.j2"),
        finalize=given.get("finalize"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = as_json
    return environment.get_template(template).render(**given)


def as_yaml(value: Any) -> str:
    """YAML as people write it: in the given order, with text as it is."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class _Table:
    """Rows with a forest plot, and the axis that they share."""

    title: str
    caption: str
    rows: Rows
    axis: forest_plot.Axis | None


_GAINS = {
    "Against its own baseline": "The gain from knowledge.",
    "Against the controls": "The same transfer, of something other than the profiles: a gain above "
    "the controls comes from what the profiles say.",
    "Against the references": "Models without profiles.",
}
_SLICES = {
    "history": "Users by quarters of their training interactions.",
    "popularity": "Held-out items of the head, the fewest that hold 80 % of the training "
    "interactions, or of the tail.",
    "profile": "Users with a profile, and without.",
}


def _comparison(
    pipeline: Pipeline, evaluated: Evaluated, found: StoredEvaluation, metric: str
) -> dict[str, Any]:
    """Tables: the leaderboard, contrasts by what arms are compared with, and slices."""
    primary = [row for row in found.contrasts if row["is_primary"]]
    own = [row for row in found.contrasts if row["against"] == BASELINE]
    references = [reference.model for reference in evaluated.references]
    references += [row["against"] for row in primary if row["against"] in pipeline.models]
    references = list(dict.fromkeys(references))

    def kind(row: wording.Row) -> str:
        if row["against"] == BASELINE:
            return "Against its own baseline"
        return f"Against the {'references' if row['against'] in references else 'controls'}"

    return {
        "rows": own,
        "sentence": verdict.verdict(found.contrasts),
        "others": verdict.sentence([row for row in own if row["arm"] != verdict.main_arm(own)]),
        "notes": wording.notes(own),
        "references": [reference.sentence() for reference in evaluated.references],
        "leaderboard": leaderboard(found, references, metric == "logloss"),
        "gains": _tables(_GAINS, [(kind(row), row) for row in primary]),
        "contrasts": found.contrasts,
        "metrics": dict.fromkeys(
            wording.metric_name(row["metric"], row["k"]) for row in found.contrasts
        ),
        "verdicts": dict.fromkeys(row["verdict"].split(":")[0] for row in found.contrasts),
        "slices": _tables(_SLICES, [(row["kind"], row) for row in found.slices]),
        "gain": forest_plot.gain,
    }


def _tables(captions: dict[str, str], rows: Sequence[tuple[str, dict[str, Any]]]) -> list[_Table]:
    tables = []
    for title, caption in captions.items():
        own = [row for kind, row in rows if kind == title]
        if own:
            tables.append(_Table(title, caption, own, forest_plot.axis(own)))
    return tables


def _configurations(pipeline: Pipeline, runs: Rows) -> list[dict[str, Any]]:
    """Every run's own part, and where its configuration differs from the pipeline's."""
    shared = as_yaml(pipeline.identity())
    rows = []
    for run in runs:
        job = run["config"].get("job", {})
        others = {key: value for key, value in run["config"].items() if key != "job"}
        rows.append({**run, "job": as_yaml(job), "diff": run_facts.diff(shared, as_yaml(others))})
    return rows


def _plotly() -> str:
    """Plotly's own script, gzipped, as base64: a third of its size, unpacked by the browser."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode()
