"""Reading the published set: one user's recommendations, with titles."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel

from models.errors import BadInput
from models.schemas import ITEM, TITLE, USER, YEAR
from tasks.publishing.manifest import ITEMS, RECOMMENDATIONS, USERS, Manifest, current
from tasks.storage.artifacts import MissingArtifact

_SHOWN = 10


class Recommendation(BaseModel):
    """One item, from rank 1."""

    rank: int
    item_id: str
    title: str | None
    year: int | None
    score: float


class Found(BaseModel):
    """One user's list, of one version."""

    experiment: str
    version: str
    user_id: str
    items: list[Recommendation]


def recommended(experiment: str, user: str, k: int | None = None) -> Found:
    """A user's published recommendations, best first; up to ten where `k` is None.

    Raises:
        BadInput: for a user without recommendations, and for more than are published.
    """
    manifest = current(experiment)
    if manifest is None:
        raise BadInput(f"{experiment}: no version is published. Run `llmkt nightly` first.")
    rows = _rows(manifest, user)
    longest = max(row["rank"] for row in rows)
    if k is not None and k > longest:
        raise BadInput(
            f"-k {k}: {manifest.version} of {experiment} has {longest} recommendations for user "
            f"{user}. Raise nightly.k and publish again for more."
        )
    rows = rows[: k or _SHOWN]
    items = [row[ITEM] for row in rows]
    columns, known = [ITEM, TITLE, YEAR], [(ITEM, "in", items)]
    catalogue = pq.read_table(_whole(manifest, ITEMS), columns=columns, filters=known).to_pylist()
    facts = {row[ITEM]: row for row in catalogue}
    return Found(
        experiment=experiment,
        version=manifest.version,
        user_id=user,
        items=[Recommendation.model_validate(row | facts[row[ITEM]]) for row in rows],
    )


def _rows(manifest: Manifest, user: str) -> list[dict[str, Any]]:
    """Schema `RECOMMENDATIONS` of one user, by rank."""
    path = _whole(manifest, RECOMMENDATIONS)
    rows: list[dict[str, Any]] = (
        pq.read_table(path, filters=[(USER, "=", user)]).sort_by("rank").to_pylist()
    )
    if rows:
        return rows
    known = pq.read_table(_whole(manifest, USERS), filters=[(USER, "=", user)]).num_rows
    if known:
        raise BadInput(
            f"user {user} has no recommendations in {manifest.version} of {manifest.experiment}: "
            "it was trained without an interaction of theirs, since all of them are held out"
        )
    raise BadInput(
        f"user {user} is not known to {manifest.version} of {manifest.experiment}, which has "
        f"recommendations for {manifest.users_served} users"
    )


def _whole(manifest: Manifest, name: str) -> Path:
    """A file of the version, every byte as it was published; fetched from the store if need be."""
    try:
        return manifest.handle(name).verify()
    except MissingArtifact as error:
        raise BadInput(
            f"{error}, so it is not as published. Go back with `llmkt champion rollback`."
        ) from error
