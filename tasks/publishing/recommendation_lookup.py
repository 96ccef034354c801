"""Reading the published set: users' recommendations, with titles."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from models.errors import BadInput
from models.schemas import USER
from tasks.publishing.manifest import ITEMS, POPULAR, RECOMMENDATIONS, USERS, Manifest, current
from tasks.storage.artifacts import MissingArtifact, read_parquet
from tasks.storage.sql_scripts import query

_SHOWN = 10
ITEM_VECTORS = "items.parquet"


class Recommendation(BaseModel):
    """One item, from rank 1."""

    rank: int
    item_id: str
    title: str | None
    year: int | None
    score: float


class Found(BaseModel):
    """One user's list, of one version; `source` as in `RECOMMENDATIONS`."""

    experiment: str
    version: str
    user_id: str | None
    source: str
    items: list[Recommendation]


def recommended(experiment: str, user: str, k: int | None = None) -> Found:
    """A user's `k` (None: up to ten) published items, best first; BadInput if there are fewer."""
    manifest = current(experiment)
    if manifest is None:
        raise BadInput(f"{experiment}: no version is published. Run `llmkt nightly` first.")
    lists = _read(manifest, RECOMMENDATIONS)
    mine = lists.filter(pc.equal(lists[USER], user))
    if not len(mine):
        raise _without_list(manifest, user)
    if k is not None and k > len(mine):
        raise BadInput(
            f"-k {k}: {manifest.version} of {experiment} has {len(mine)} recommendations for user "
            f"{user}. Raise nightly.k and publish again for more."
        )
    [(_, answer)] = _answers(manifest, mine.filter(pc.less_equal(mine["rank"], k or _SHOWN)))
    return Found.model_validate_json(answer)


def answers(manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Each user and the user's `Found` as JSON; the empty name stands for users not known."""
    for name in (POPULAR, RECOMMENDATIONS):
        yield from _answers(manifest, _read(manifest, name))


def similar(manifest: Manifest, item: str, k: int) -> bytes | None:
    """The `k` items whose published vectors are closest by cosine, as JSON; None without one."""
    if ITEM_VECTORS not in manifest.files:
        return None
    tables = {"vectors": read_parquet(manifest.handle(ITEM_VECTORS))}
    [found] = query("publishing/similar", tables, item=item, k=k)["answer"].to_pylist()
    return found and str(found).encode()


def _answers(manifest: Manifest, lists: pa.Table) -> Iterator[tuple[str, bytes]]:
    tables = {"lists": lists, "items": _read(manifest, ITEMS)}
    names = {"experiment": manifest.experiment, "version": manifest.version}
    found = query("publishing/answers", tables, **names)
    for user, answer in zip(found[USER], found["answer"], strict=True):
        yield user.as_py(), answer.as_py().encode()


def _without_list(manifest: Manifest, user: str) -> BadInput:
    users = _read(manifest, USERS)[USER]
    if pc.any(pc.equal(users, user)).as_py():
        return BadInput(
            f"user {user} has no recommendations in {manifest.version} of {manifest.experiment}: "
            "the user knows the whole catalogue. Bring new items."
        )
    return BadInput(
        f"user {user} is not known to {manifest.version} of {manifest.experiment}, which has "
        f"recommendations for {manifest.users_served} users"
    )


def _read(manifest: Manifest, name: str) -> pa.Table:
    """A file of the version, every byte as it was published; fetched from the store if need be."""
    try:
        return read_parquet(manifest.handle(name))
    except MissingArtifact as error:
        raise BadInput(
            f"{error}, so it is not as published. Go back with `llmkt champion rollback`."
        ) from error
