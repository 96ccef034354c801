"""Stage *report*: one HTML file that needs no network."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.context import TaskRunContext
from slugify import slugify

from models.config import Pipeline
from models.errors import BadInput
from models.report import wording
from models.report.verdict import sentence
from tasks.embeddings.outputs import Described, origin
from tasks.evaluation.outputs import Evaluated
from tasks.execution.stage import StageRecord, stage
from tasks.report.outputs import Reported
from tasks.report.page import page
from tasks.storage.artifacts import Handle, data_dir, mirror, replacing, share, write_bytes
from tasks.training.outputs import Trained


@stage("report", version=8, ignore=("stages",))
def report(
    pipeline: Pipeline,
    evaluated: Evaluated,
    trained: list[Trained],
    described: list[Described],
    stages: Sequence[StageRecord] = (),
) -> Reported:
    """Write the report, as an artifact and under its stable name `reports/EXPERIMENT.html`.

    The seconds of `stages` differ from run to run and are no part of the key: a page whose
    numbers still hold keeps the times of the run that made it.
    """
    content = page(pipeline, evaluated, trained, described, stages)
    artifact = write_bytes("report", ".html", content)
    reported = Reported(
        comparison=evaluated.contrasts,
        references=evaluated.references,
        report=artifact,
        page=publish_page(pipeline.experiment, content),
    )
    source = origin(described)
    rows = [contrast.row() | source for contrast in evaluated.contrasts]
    _show_in_prefect(pipeline.experiment, rows, reported.page.file)
    return reported


def find_report(experiment: str | None = None) -> Path:
    """The report of an experiment, or the newest one; BadInput says which there are."""
    mirror("reports")
    folder = data_dir() / "reports"
    pages = sorted(folder.glob("*.html"), key=lambda file: file.stat().st_mtime)
    if not pages:
        raise BadInput(f"{folder}: holds no report. Run `llmkt run CONFIG` first.")
    if experiment is None:
        return pages[-1]
    found = {file.stem: file for file in pages}
    if experiment not in found:
        known = ", ".join(sorted(found))
        raise BadInput(f"{folder}: no report of experiment '{experiment}'. Choose one of {known}.")
    return found[experiment]


def publish_page(name: str, content: bytes) -> Handle:
    """Write a page under its stable name, `reports/NAME.html`, all at once."""
    final = data_dir() / "reports" / f"{name}.html"
    with replacing(final) as temporary:
        temporary.write_bytes(content)
    share(final)
    sha256 = hashlib.sha256(content).hexdigest()
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
        show_point = any(row.get("point") for row in rows)
        create_table_artifact(
            table=[wording.readable(row, show_point=show_point) for row in rows],
            key=f"comparison-{key}",
            description=" ".join([sentence(rows), *wording.notes(rows)]),
        )
