"""Profiles as they are known now: what a run left behind, with nothing asked and nothing paid.

The stages before the profiles are recalled from the cache, or computed again; they cost seconds.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel

from models.changes import Word, cosines, distribution, words_changed
from models.config import Pipeline, Side
from models.errors import BadInput
from models.profiles import describe, presentable, select
from models.prompts import Prompt
from models.schemas import ITEM, KEYS, RATING, TEXT, TIMESTAMP, TITLE, USER, YEAR, noun
from tasks.answers import answer_store
from tasks.configuration import load, prompt_of
from tasks.embeddings import stored_vectors
from tasks.handoffs import Profiled, Provenance
from tasks.import_files import take_in_profiles
from tasks.interactions import interactions, raw_files
from tasks.profiles import profiles, profiles_asked
from tasks.split import split, split_files
from tasks.storage import Handle, read_parquet
from tasks.text_models import identity


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
        """Load it; see `tasks.configuration.load` for errors."""
        return cls(path, tuple(overrides), load(path, overrides))

    @property
    def command(self) -> str:
        """The command that computes everything of it."""
        sets = [part for override in self.overrides for part in ("--set", override)]
        return shlex.join(["llmkt", "run", str(self.path), *sets])


@dataclass(frozen=True)
class Ground:
    """What profiles are written from, as handles."""

    train: Handle
    items: Handle
    demographics: Handle | None


def ground(pipeline: Pipeline, side: Side) -> Ground:
    """Interactions and split, without a run."""
    fields = pipeline.demographics((side,))
    raw = raw_files(pipeline.dataset, fields)
    data = interactions.recall(pipeline.dataset, raw, fields)
    parts = split.recall(pipeline.split, data.interactions, split_files(pipeline.split))
    return Ground(parts.train, data.items, data.demographics)


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
        table=table, source=config.provider, llm_model=config.llm.model, provenance="train-only"
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


class Extent(BaseModel):
    """How much of one configuration is there.

    Attributes:
        subjects: users (items) of the training part.
        written: those with a profile.
        embedded: those of them whose text was embedded.
        command: what computes the rest.
    """

    config: str
    source: str
    subjects: int
    written: int
    embedded: int
    command: str


class Change(BaseModel):
    """What happened to one profile; `cosine` is None where a vector is missing."""

    id: str
    words: list[Word]
    cosine: float | None


class Difference(BaseModel):
    """What a change did to profiles.

    Attributes:
        a, b: how much of either is there.
        both: subjects with a profile in both.
        same_text: those of them whose text did not change.
        compared: those of them with a vector in both.
        cosines: mean, extremes and quantiles over those.
        not_compared: why vectors cannot be compared at all.
        changes: some whose text changed: the farthest moved first, as far as that is known.
    """

    side: Side
    a: Extent
    b: Extent
    both: int
    same_text: int
    compared: int
    cosines: dict[str, float]
    not_compared: Literal["embedded by different text models"] | None
    changes: list[Change]


def diff(a: Configured, b: Configured, n: int, side: Side = "users") -> Difference:
    """Compare the profiles of two configurations and their vectors, as far as they are there.

    Args:
        a: the one before.
        b: the one after.
        n: how many changed profiles to name.
        side: of users or of items.
    """
    known = [written(one, side, ground(one.pipeline, side)) for one in (a, b)]
    texts = [_texts(one.table, KEYS[side]) for one in known]
    both = sorted(texts[0].keys() & texts[1].keys())
    vectors = [_vectors(one.pipeline, side, of) for one, of in zip((a, b), texts, strict=True)]
    settings = [identity(one.pipeline.embeddings_of(side)) for one in (a, b)]
    comparable = settings[0] == settings[1]
    compared = [token for token in both if token in vectors[0] and token in vectors[1]]
    compared = compared if comparable else []
    near = _near(compared, vectors)
    changed = [token for token in both if texts[0][token] != texts[1][token]]
    changed.sort(key=lambda token: near.get(token, 2.0))
    extents = [
        Extent(
            config=str(one.path),
            source=of.source,
            subjects=of.table.num_rows,
            written=len(by_token),
            embedded=len(embedded),
            command=one.command,
        )
        for one, of, by_token, embedded in zip((a, b), known, texts, vectors, strict=True)
    ]
    return Difference(
        side=side,
        a=extents[0],
        b=extents[1],
        both=len(both),
        same_text=len(both) - len(changed),
        compared=len(compared),
        cosines=distribution(np.array(list(near.values()))),
        not_compared=None if comparable else "embedded by different text models",
        changes=[
            Change(
                id=token,
                words=words_changed(texts[0][token], texts[1][token]),
                cosine=near.get(token),
            )
            for token in changed[:n]
        ],
    )


def _texts(table: pa.Table, key: str) -> dict[str, str]:
    has_text = table.filter(pc.is_valid(table[TEXT]))
    return dict(zip(has_text[key].to_pylist(), has_text[TEXT].to_pylist(), strict=True))


def _vectors(
    pipeline: Pipeline, side: Side, texts: dict[str, str]
) -> dict[str, NDArray[np.float32]]:
    """The vectors of those subjects whose text was embedded before."""
    tokens = list(texts)
    places, matrix = stored_vectors(pipeline.embeddings_of(side), list(texts.values()))
    return {tokens[place]: row for place, row in zip(places.tolist(), matrix, strict=True)}


def _near(compared: list[str], vectors: list[dict[str, Any]]) -> dict[str, float]:
    if not compared:
        return {}
    before, after = (np.stack([of[token] for token in compared]) for of in vectors)
    return dict(zip(compared, cosines(before, after).tolist(), strict=True))
