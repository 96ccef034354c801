"""How a night ended, for the page of its run in Prefect's UI."""

from collections.abc import Sequence

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext
from slugify import slugify

from models.config import parse_metric
from models.report import wording
from tasks.embeddings.outputs import Described
from tasks.publishing.manifest import CURRENT, folder_of
from tasks.publishing.outputs import Judged, Promotion
from tasks.storage.artifacts import data_dir


def announce(row: Promotion, judged: Judged | None, described: Sequence[Described]) -> None:
    """Leave the decision, the bill and the way to the files with Prefect's run, if this is one."""
    if FlowRunContext.get() is None:
        return
    key = slugify(row.experiment)
    create_markdown_artifact(
        _decision(row, judged), key=f"gate-{key}", description=f"{row.decision}: {row.reason}"
    )
    if described:
        create_table_artifact(
            _bill(described), key=f"cost-{key}", description=f"This night: {_usd(row.cost_usd)}"
        )
    folder = (folder_of(row.experiment) / CURRENT).resolve()
    links = {"published": folder, "report": data_dir() / "reports" / f"{row.experiment}.html"}
    for name, path in links.items():
        if path.exists():
            create_link_artifact(
                path.as_uri(), link_text=path.name, key=f"{name}-{key}", description=str(path)
            )


def _decision(row: Promotion, judged: Judged | None) -> str:
    lines = [f"# {row.decision.capitalize()}", "", f"{row.reason}.", ""]
    if judged is not None:
        theirs = judged.champion_metrics
        lines += ["| metric | challenger | champion |", "|---|---|---|"]
        lines += [
            f"| {wording.metric_name(*parse_metric(name))} | {value:.4f} | "
            f"{wording.number(theirs.get(name))} |"
            for name, value in judged.metrics.items()
        ]
        lines += ["", "Each over all users that the model serves; the decision is over both's."]
    facts = {
        "New interactions": row.new_interactions,
        "Refused rows and files of drops": row.quarantined,
        "Champion": row.champion_version or "none",
        "Challenger": row.challenger_version or "none",
        "Start": row.start,
        "Reducer": row.refit or wording.NOTHING,
        "Cost of this night's answers": _usd(row.cost_usd),
    }
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]
    return "\n".join(lines)


def _bill(described: Sequence[Described]) -> list[dict[str, object]]:
    """What each side's profiles cost when they were written."""
    return [
        {
            "profiles of": side.side,
            "source": side.source,
            "answers paid for": side.profiled.answers_paid if side.profiled else 0,
            "answers from the store": side.profiled.answers_cached if side.profiled else 0,
            "cost": _usd(side.profiled.cost_usd if side.profiled else 0.0),
        }
        for side in described
    ]


def _usd(cost: float | None) -> str:
    return "not known" if cost is None else f"{cost:.4f} USD"
