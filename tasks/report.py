"""Stage *report*: one HTML file that needs no network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.context import TaskRunContext
from slugify import slugify

from models import charts, wording
from models.config import Pipeline, parse_metric
from models.errors import BadInput
from tasks.caching import stage
from tasks.disk import writing
from tasks.handoffs import Described, Evaluated, Reference, Reported, Trained, origin
from tasks.storage import Handle, data_dir, new_file, write_bytes

_TEMPLATES = Path(__file__).parent / "templates"


@stage("report", version=4)
def report(
    pipeline: Pipeline,
    evaluated: Evaluated,
    trained: list[Trained],
    described: list[Described],
) -> Reported:
    """Write the report, as an artifact and under its stable name `reports/EXPERIMENT.html`."""
    source = origin(described)
    rows = [difference.model_dump() | source for difference in evaluated.differences]
    facts = _facts(evaluated, trained, described)
    page = _page(pipeline, rows, trained, facts, reference_lines(evaluated.references))
    artifact = write_bytes("report", ".html", page)
    reported = Reported(
        comparison=evaluated.differences,
        references=evaluated.references,
        report=artifact,
        page=_publish(pipeline.experiment, page, artifact.sha256),
    )
    _show_in_prefect(pipeline.experiment, rows, reported.page.file)
    return reported


def reference_lines(references: Sequence[Reference]) -> list[str]:
    """Models without knowledge, one line each."""
    return [wording.reference(of.model, of.metric, of.k, of.mean, of.sd) for of in references]


def find_report(experiment: str | None = None) -> Path:
    """The report of an experiment, or the newest one.

    Raises:
        BadInput: if it is not there; says which there are.
    """
    folder = data_dir() / "reports"
    pages = sorted(folder.glob("*.html"), key=lambda page: page.stat().st_mtime)
    if not pages:
        raise BadInput(f"{folder} holds no report: run `llmkt run CONFIG` first")
    if experiment is None:
        return pages[-1]
    found = [page for page in pages if page.stem == experiment]
    if not found:
        known = ", ".join(sorted(page.stem for page in pages))
        raise BadInput(f"{folder} has no report of experiment {experiment}; it has {known}")
    return found[0]


def _page(
    pipeline: Pipeline,
    rows: list[dict[str, Any]],
    trained: list[Trained],
    facts: Mapping[str, Mapping[str, Any]],
    references: Sequence[str],
) -> bytes:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    primary = wording.metric_name(*parse_metric(pipeline.evaluation.primary))
    primary_rows = [row for row in rows if row["is_primary"]]
    courses = [charts.Course(run.job, run.epochs, run.best_epoch) for run in trained]
    page = environment.get_template("report.html.j2").render(
        pipeline=pipeline,
        rows=rows,
        references=references,
        primary=primary,
        valid_metric=parse_metric(pipeline.training.valid_metric),
        primary_rows=primary_rows,
        bars=charts.bars(primary_rows, primary) if primary_rows else None,
        curves=charts.learning_curves(courses),
        arms={run.job.arm: charts.COLOURS[run.job.arm] for run in trained},
        trained=trained,
        facts=facts,
        words=wording,
        configuration=yaml.safe_dump(
            pipeline.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        plotly=Markup(get_plotlyjs()),
    )
    return page.encode()


def _facts(
    evaluated: Evaluated,
    trained: list[Trained],
    described: list[Described],
) -> dict[str, dict[str, Any]]:
    """Where the numbers come from, under headings."""
    facts: dict[str, dict[str, Any]] = {}
    for of in described:
        facts |= _side_facts(of)
    facts["Code and configuration"] = {
        "Git commit": evaluated.git_sha or "not known",
        "Configuration hash": evaluated.config_hash,
        "Evaluation": evaluated.evaluation_id,
    }
    facts["Packages"] = _versions(trained[0].rankings)
    return facts


def _side_facts(described: Described) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    profiled, embedded, side = described.profiled, described.embedded, described.side
    if profiled:
        facts[f"Profiles of {side}"] = {
            "Source": profiled.source,
            "Provenance": profiled.provenance,
            "LLM": profiled.llm_model or "none",
            "Prompt hash": profiled.prompt_hash,
            f"{side.capitalize()} without a profile": profiled.missing,
            "Answers paid for / from the cache": (
                f"{profiled.answers_paid} / {profiled.answers_cached}"
            ),
            "Cost in USD": "not known" if profiled.cost_usd is None else f"{profiled.cost_usd:.4f}",
            "Artifact, sha256": profiled.profiles.sha256,
        }
    facts[f"Embeddings of {side}"] = {"Model": embedded.model, "Width": embedded.width}
    if embedded.provenance:
        facts[f"Embeddings of {side}"] |= {
            "Provenance": embedded.provenance,
            f"{side.capitalize()} without a vector": embedded.missing,
        }
    facts[f"Embeddings of {side}"]["Artifact, sha256"] = embedded.embeddings.sha256
    return facts


def _versions(rankings: Handle) -> dict[str, str]:
    """Package versions at the time of training, from the artifact's own record."""
    record = json.loads(pq.read_metadata(rankings.verify()).metadata[b"llmkt"])
    versions: dict[str, str] = record["versions"]
    return versions


def _publish(experiment: str, page: bytes, sha256: str) -> Handle:
    """Write the page under its stable name, all at once."""
    folder = data_dir() / "reports"
    final = folder / f"{experiment}.html"
    with writing(final), new_file(folder) as temporary:
        temporary.write_bytes(page)
        temporary.chmod(0o644)
        temporary.replace(final)
    return Handle(path=final.relative_to(data_dir()).as_posix(), sha256=sha256, rows=0)


def _show_in_prefect(experiment: str, rows: Sequence[wording.Row], page: Path) -> None:
    """Leave the comparison and a link to the page with the run, if this is one."""
    if TaskRunContext.get() is None:
        return
    key = slugify(experiment)
    create_link_artifact(
        link=page.as_uri(), link_text=page.name, key=f"report-{key}", description=str(page)
    )
    if rows:
        create_table_artifact(
            table=[wording.readable(row) for row in rows],
            key=f"comparison-{key}",
            description=" ".join([wording.sentence(rows), *wording.notes(rows)]),
        )
