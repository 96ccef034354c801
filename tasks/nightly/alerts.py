"""Who is told how a night ended: Prefect's events, which automations.yaml turns into messages.

Every event has the reason and a link to the run in Prefect's UI, or to the version's folder.
"""

from collections.abc import Sequence

from prefect.events import emit_event
from prefect.logging import get_logger
from prefect.runtime import flow_run

from models.config import Sink
from tasks.embeddings.outputs import Described
from tasks.nightly.promotion_log import promotions
from tasks.publishing.manifest import current, folder_of
from tasks.publishing.outputs import Promotion
from tasks.publishing.sinks import deliver


def tell(row: Promotion, quarantine: float = 1.0, described: Sequence[Described] = ()) -> None:
    """Emit `llmkt.night.DECISION`, and alerts about budgets and refused rows.

    `quarantine` is the share of new rows whose refusal is an alert, `described` tonight's profiles.
    """
    emit(f"llmkt.night.{row.decision.replace(' ', '-')}", row.experiment, row.reason, row)
    unasked = sum(side.profiled.unasked for side in described if side.profiled)
    if unasked:
        emit("llmkt.alert.budget", row.experiment, f"the budget left {unasked} unasked", row)
    nights = promotions(row.experiment)
    earlier = [n["quarantined"] for n in nights if n["decided_at"] < row.decided_at]
    refused = row.quarantined - next(iter(earlier), 0)
    if refused > quarantine * max(refused + row.new_interactions, 1):
        emit("llmkt.alert.quarantine", row.experiment, f"{refused} new rows were refused", row)


def deliver_current(experiment: str, sinks: Sequence[Sink]) -> None:
    """Give the current version to sinks that have not got it; a failure is an alert, no more."""
    champion = current(experiment)
    if champion is not None:
        for failure in deliver(champion, sinks):
            get_logger(__name__).warning("%s", failure)
            emit("llmkt.alert.sink", experiment, failure, champion.decision)


def emit(event: str, experiment: str, reason: str, row: Promotion) -> None:
    """Emit one event about a night."""
    link = flow_run.ui_url or folder_of(experiment).as_uri()
    known = row.model_dump(mode="json", include={"experiment", "challenger_version", "cost_usd"})
    resource = {"prefect.resource.id": f"llmkt.{experiment}"}
    emit_event(event, resource, payload={**known, "reason": reason, "link": link})
