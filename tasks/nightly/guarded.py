"""What guardrails look at: tonight's lists and profiles beside the champion's."""

from contextlib import suppress

from models.publishing.guardrails import breaches
from models.schemas import EMBEDDING
from tasks.embeddings.outputs import Described
from tasks.nightly.night import Made, Night
from tasks.nightly.promotion_log import promotions
from tasks.publishing.manifest import RECOMMENDATIONS, Manifest
from tasks.publishing.outputs import Promotion, Recommended
from tasks.storage.artifacts import MissingArtifact, read_parquet
from tasks.storage.sql_scripts import query


def guarded(night: Night, row: Promotion, offered: Recommended, made: Made) -> Promotion:
    """Tonight's row with whom its lists serve, and the decision after the guardrails.

    A breach keeps the champion, or asks for approval.
    """
    rule, champion = night.pipeline.nightly, night.champion
    found = {
        "served_from": rule.serve_from,
        **offered.serving.model_dump(),
        "list_overlap": champion and _list_overlap(offered, champion),
        "profile_drift": champion and _drift(made.described, champion),
    }
    before = [known for known in promotions(row.experiment) if known["challenger_version"]]
    was = champion.decision.model_dump() if champion else None
    reasons = "; ".join(breaches(rule, row.model_dump() | found, was, before))
    if reasons:
        reason = f"{row.reason}; but {reasons}"
        found |= {"decision": rule.guardrails.on_breach, "reason": reason}
    return row.model_copy(update=found)


def _list_overlap(offered: Recommended, champion: Manifest) -> float | None:
    """Share of tonight's places whose item was in the same user's list before."""
    before = read_parquet(champion.handle(RECOMMENDATIONS))
    tables = {"lists": read_parquet(offered.recommendations), "earlier": before}
    return query("publishing/overlap", tables)["share"][0].as_py()  # type: ignore[no-any-return]


def _drift(described: tuple[Described, ...], champion: Manifest) -> float | None:
    """The larger side's drift; None where the text model has changed, or nothing is left."""
    found = []
    for side in described:
        earlier = champion.inputs.get(f"embeddings of {side.side}")
        with suppress(MissingArtifact):
            both = [read_parquet(each) for each in (side.embedded.embeddings, earlier) if each]
            if len({table.schema.field(EMBEDDING).type for table in both}) == len(both) - 1:
                now, was = (table.rename_columns(["id", EMBEDDING]) for table in both)
                found.append(
                    query("publishing/drift", {"now": now, "was": was})["drift"][0].as_py()
                )
    return max(filter(None, found), default=0.0 if found else None)
