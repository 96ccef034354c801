"""What guardrails look at: tonight's lists and profiles beside the champion's."""

from contextlib import suppress

from models.publishing.guardrails import breaches
from models.schemas import EMBEDDING
from tasks.embeddings.outputs import Described
from tasks.nightly.night import Made, Night
from tasks.nightly.promotion_log import promotions
from tasks.publishing.manifest import RECOMMENDATIONS, Manifest
from tasks.publishing.outputs import Promotion, Recommended, Serving
from tasks.publishing.sql_queries import query
from tasks.storage.artifacts import MissingArtifact, read_parquet


def measured(night: Night, row: Promotion, offered: Recommended, made: Made) -> Promotion:
    """Add to tonight's row whom the lists serve, and how far they and the profiles have moved."""
    champion = night.champion
    found = {
        "served_from": night.pipeline.nightly.serve_from,
        **{column: getattr(offered.serving, column) for column in Serving.model_fields},
        "list_overlap": champion and _list_overlap(offered, champion),
        "profile_drift": champion and _drift(made.described, champion),
    }
    return row.model_copy(update=found)


def guarded(night: Night, row: Promotion) -> Promotion:
    """Tonight's row after the guardrails: a breach keeps the champion, or asks for approval."""
    rule = night.pipeline.nightly
    champion = night.champion.decision.model_dump() if night.champion else None
    before = [known for known in promotions(row.experiment) if known["challenger_version"]]
    found = "; ".join(breaches(rule, row.model_dump(), champion, before))
    how = {"decision": rule.guardrails.on_breach, "reason": f"{row.reason}; but {found}"}
    return row.model_copy(update=how) if found else row


def _list_overlap(offered: Recommended, champion: Manifest) -> float | None:
    """Share of tonight's places whose item was in the same user's list before."""
    before = read_parquet(champion.handle(RECOMMENDATIONS))
    tables = {"lists": read_parquet(offered.recommendations), "earlier": before}
    return query("overlap", tables)["share"][0].as_py()  # type: ignore[no-any-return]


def _drift(described: tuple[Described, ...], champion: Manifest) -> float | None:
    """The larger side's drift; None where the text model has changed, or nothing is left."""
    found = []
    for side in described:
        earlier = champion.inputs.get(f"embeddings of {side.side}")
        with suppress(MissingArtifact):
            both = [read_parquet(each) for each in (side.embedded.embeddings, earlier) if each]
            if len({table.schema.field(EMBEDDING).type for table in both}) == len(both) - 1:
                now, was = (table.rename_columns(["id", EMBEDDING]) for table in both)
                found.append(query("drift", {"now": now, "was": was})["drift"][0].as_py())
    return max(filter(None, found), default=0.0 if found else None)
