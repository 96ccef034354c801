"""Profiles as they are known now: what a run left behind, with nothing asked and nothing paid.

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
from models.profiles.prompt_templates import Prompt
from models.profiles.user_history import describe, presentable, select
from models.schemas import ITEM, KEYS, RATING, TEXT, TIMESTAMP, TITLE, USER, YEAR, noun
from tasks.config.pipeline_file import load
from tasks.config.prompt_file import prompt_of
from tasks.dataset.interactions_task import interactions, raw_files
from tasks.dataset.split_task import split, split_files
from tasks.llm.answer_store import answer_store
from tasks.profiles.llm_writer import profiles_asked
from tasks.profiles.outputs import Profiled, Provenance
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import Handle, read_parquet
from tasks.storage.imported_files import take_in_profiles


@dataclass(frozen=True)
class Configured:
    """A configuration file with its overrides.

    Attributes:
        path: the file.
        overrides: `dotted.key=value` texts.
        pipeline: what they say.
    """

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


@dataclass(frozen=True)
class Ground:
    """What profiles are written from, as handles; more than training if they may see all."""

    train: Handle
    items: Handle
    demographics: Handle | None


def ground(pipeline: Pipeline, side: Side) -> Ground:
    """Interactions and split, without a run."""
    fields = pipeline.demographics((side,))
    raw = raw_files(pipeline.dataset, fields)
    data = interactions.recall(pipeline.dataset, raw, fields)
    parts = split.recall(pipeline.split, data.interactions, split_files(pipeline.split))
    seen = data.interactions if pipeline.sees_all(side) else parts.train
    return Ground(seen, data.items, data.demographics)


class Written(BaseModel):
    """The profiles that a configuration has now.

    Attributes:
        table: `profiles_schema`; without text and reason where nothing was asked yet.
    """

    model_config = {"arbitrary_types_allowed": True}

    table: pa.Table
    source: str
    llm_model: str | None
    provenance: Provenance


def written(configured: Configured, side: Side, on: Ground) -> Written:
    """Every profile that is there already, or that costs nothing.

    Raises:
        BadInput: for a faulty prompt or import, and where vectors are imported, which have none.
    """
    pipeline = configured.pipeline
    if pipeline.embeddings_of(side).provider == "import":
        raise BadInput(
            f"{configured.path} imports the vectors of {side}, so there are no profiles to show"
        )
    config = pipeline.profiles_of(side)
    if config.provider == "items":
        raise BadInput(
            f"{configured.path} describes users by their items, so they have no profiles of their "
            "own; show the items' with --side items"
        )
    if not config.asks:
        found: Profiled = profiles.recall(
            config,
            prompt_of(pipeline, side),
            on.train,
            on.items,
            take_in_profiles(config),
            side,
            None,
        )
        return Written(
            table=read_parquet(found.profiles),
            source=found.source,
            llm_model=None,
            provenance=found.provenance,
        )
    template = Prompt(prompt_of(pipeline, side), config.prompt, side)
    with answer_store() as store:
        table = profiles_asked(config, template, on.train, on.items, side, on.demographics, store)
    return Written(
        table=table,
        source=config.provider,
        llm_model=config.llm.model,
        provenance="leaky" if pipeline.sees_all(side) else "train-only",
    )


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
    """One profile, what it was written from, and what that proves.

    Args:
        configured: the configuration.
        token: raw id of a user or an item.
        side: which of them.

    Raises:
        BadInput: for an id that the training part does not have.
    """
    on = ground(configured.pipeline, side)
    known, key = written(configured, side, on), KEYS[side]
    found = known.table.filter(pc.equal(known.table[key], token))
    if not found.num_rows:
        examples = ", ".join(known.table[key][:3].to_pylist())
        raise BadInput(
            f"the training part of {configured.path} has no {noun(key)} {token}; ids are raw "
            f"tokens such as {examples}"
        )
    (row,) = found.to_pylist()
    return Shown(
        side=side,
        id=token,
        text=row[TEXT],
        source=known.source,
        llm_model=known.llm_model,
        provenance=known.provenance,
        history_count=row["history_count"],
        history_sha256=row["history_sha256"],
        saw=_saw(configured, token, side, on),
        command=configured.command,
    )


def _saw(configured: Configured, token: str, side: Side, on: Ground) -> list[Seen] | None:
    config = configured.pipeline.profiles_of(side)
    if side == "items" or config.provider == "import":
        return None
    train = read_parquet(on.train)
    policy = config.history
    if not config.asks:
        policy = policy.model_copy(update={"limit": max(train.num_rows, 1)})
    selected = select(train, policy)
    mine = selected.filter(pc.equal(selected[USER], token))
    rows = describe(mine, presentable(read_parquet(on.items))).to_pylist()
    return [
        Seen(
            item=row[ITEM],
            title=row[TITLE],
            year=row[YEAR],
            rating=row[RATING],
            timestamp=row[TIMESTAMP],
        )
        for row in rows
    ]
