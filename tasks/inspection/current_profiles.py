"""Profiles as they are now: what a run left behind, with no request sent and nothing paid.

The stages before the profiles are recalled from the cache, or computed again; they cost seconds.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from models.config import Pipeline, Side
from models.errors import BadInput
from models.profiles.user_history import describe, presentable, select
from models.schemas import ITEM, KEYS, RATING, TEXT, TIMESTAMP, TITLE, USER, YEAR, noun
from tasks.config.pipeline_file import load
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions
from tasks.dataset.outputs import Interactions, Splits
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split, split_files
from tasks.llm.answer_store import answer_store
from tasks.profiles.knowledge_pack import given_texts
from tasks.profiles.llm_writer import answered
from tasks.profiles.outputs import Profiled, Provenance
from tasks.profiles.profiles_task import PROVIDERS, profiles
from tasks.profiles.request import Request
from tasks.storage.artifacts import read_parquet


@dataclass(frozen=True)
class Configured:
    """A configuration file, its overrides (`dotted.key=value`), and what they say."""

    path: Path
    overrides: tuple[str, ...]
    pipeline: Pipeline

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> "Configured":
        """Load it; see `tasks.config.pipeline_file.load` for errors."""
        return cls(path, tuple(overrides), load(path, overrides))

    @property
    def command(self) -> str:
        """The command that computes everything of it."""
        sets = [part for override in self.overrides for part in ("--set", override)]
        return shlex.join(["llmkt", "run", str(self.path), *sets])


def recalled(pipeline: Pipeline, fields: tuple[str, ...] = ()) -> tuple[Interactions, Splits]:
    """Look up, or compute, the data set and its split."""
    raw = raw_files(pipeline.dataset, fields)
    data = interactions.recall(pipeline.dataset, raw, fields)
    return data, split.recall(pipeline.split, data.interactions, split_files(pipeline.split))


def request_of(pipeline: Pipeline, side: Side) -> Request:
    """Collect what one side's profiles are written from; BadInput for a faulty prompt or import."""
    config = pipeline.profiles_of(side)
    data, parts = recalled(pipeline, pipeline.demographics((side,)))
    seen = data.interactions if pipeline.sees_all(side) else parts.train
    prompt, (given, card) = prompt_of(pipeline, side), given_texts(config, side)
    return Request(config, prompt, seen, data.items, given, side, data.demographics, card=card)


@dataclass(frozen=True)
class Written:
    """The profiles (`profiles_schema`) of now; without text and reason where nothing was asked."""

    request: Request
    table: pa.Table
    llm_model: str | None
    provenance: Provenance


def written(configured: Configured, side: Side) -> Written:
    """Collect every profile that is there already, or that costs nothing.

    Raises:
        BadInput: for a faulty prompt or import, and where vectors are imported, or users are
            described by their items: they have no profiles.
    """
    pipeline = configured.pipeline
    if pipeline.embeddings_of(side).provider == "import":
        raise BadInput(
            f"{configured.path} imports the vectors of {side}, so there are no profiles. Show a "
            "configuration that has them"
        )
    request = request_of(pipeline, side)
    config = request.config
    if config.asks:
        with answer_store() as store:
            return Written(request, answered(request, store), config.llm.model, config.provenance)
    found: Profiled = profiles.recall(
        config,
        request.prompt,
        request.train,
        request.items,
        request.imported,
        side,
        None,
        None,
        request.card,
    )
    return Written(request, read_parquet(found.profiles), None, found.provenance)


class Seen(BaseModel):
    """One interaction that a profile was written from."""

    item: str
    title: str
    year: int | None
    rating: float | None
    timestamp: int | None


class Shown(BaseModel):
    """One profile and where it comes from.

    Attributes:
        text: None where there is none yet, or none could be made.
        saw: the interactions it was written from, in the order of the history policy; None where
            that is not known (imports) or is the whole training part (items).
        command: what computes a missing profile.
    """

    side: Side
    id: str
    text: str | None
    source: str
    llm_model: str | None
    provenance: Provenance
    history_count: int | None
    history_sha256: str | None
    saw: list[Seen] | None
    command: str


def show(configured: Configured, token: str, side: Side = "users") -> Shown:
    """Show a raw id's profile, its source and what that proves; BadInput for an unknown id."""
    known, key = written(configured, side), KEYS[side]
    found = known.table.filter(pc.equal(known.table[key], token))
    if not found.num_rows:
        examples = ", ".join(known.table[key][:3].to_pylist())
        raise BadInput(
            f"{configured.path}: the training part has no {noun(key)} {token}. Name a raw token, "
            f"such as {examples}"
        )
    (row,) = found.to_pylist()
    return Shown(
        side=side,
        id=token,
        text=row[TEXT],
        source=known.request.config.provider,
        llm_model=known.llm_model,
        provenance=known.provenance,
        history_count=row["history_count"],
        history_sha256=row["history_sha256"],
        saw=_saw(known.request, token),
        command=configured.command,
    )


def _saw(request: Request, token: str) -> list[Seen] | None:
    basis = PROVIDERS[request.config.provider].basis(request)
    if request.side == "items" or basis is None:
        return None
    chosen = select(read_parquet(request.train), basis.history)
    mine = chosen.filter(pc.equal(chosen[USER], token))
    rows = describe(mine, presentable(read_parquet(request.items))).to_pylist()
    fields = TITLE, YEAR, RATING, TIMESTAMP
    return [Seen(item=row[ITEM], **{name: row[name] for name in fields}) for row in rows]
