"""The page of nights, and how a night ended for the page of its run in Prefect's UI."""

from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import FlowRunContext
from slugify import slugify

from models.config import parse_metric
from models.report import wording
from tasks.embeddings.outputs import Described
from tasks.nightly.promotion_log import measured, promotions
from tasks.publishing.manifest import CURRENT, folder_of
from tasks.publishing.outputs import Judged, Promotion
from tasks.report.page import rendered
from tasks.report.report_task import publish_page
from tasks.storage.artifacts import data_dir

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(experiment: str) -> None:
    """Write the page of nights as they are recorded."""
    shown = {"nights": promotions(experiment), "measured": measured(experiment)}
    words = {"words": wording, "experiment": experiment}
    page = rendered(_TEMPLATES, "nights.html.j2", **words, **shown)
    publish_page(f"{experiment}-nights", page.encode())


def announce(row: Promotion, judged: Judged | None, described: Sequence[Described]) -> None:
    """Write the page of nights; leave the decision, the bill and links with Prefect's run."""
    write_page(row.experiment)
    if FlowRunContext.get() is None:
        return
    key = slugify(row.experiment)
    words = {"words": wording, "parse": parse_metric}
    shown = {"row": row, "judged": judged, "described": described}
    text = rendered(_TEMPLATES, "night.md.j2", **words, **shown)
    create_markdown_artifact(text, key=f"gate-{key}", description=f"{row.decision}: {row.reason}")
    folder = (folder_of(row.experiment) / CURRENT).resolve()
    reports = data_dir() / "reports"
    links = {
        "published": folder,
        "report": reports / f"{row.experiment}.html",
        "nights": reports / f"{row.experiment}-nights.html",
    }
    for name, path in links.items():
        if path.exists():
            create_link_artifact(
                path.as_uri(), link_text=path.name, key=f"{name}-{key}", description=str(path)
            )
