"""Two configurations' profiles side by side: words, vectors, and what is not there yet."""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc
from pydantic import BaseModel

from models.arrow import Singles
from models.config import Side
from models.profiles.text_diff import Word, cosines, distribution, words_changed
from models.schemas import KEYS, TEXT
from tasks.embeddings.text_models import identity
from tasks.embeddings.vector_store import stored_vectors
from tasks.inspection.current_profiles import Configured, written


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
    """Compare the profiles and vectors of `a` (before) and `b` (after), as far as they are there.

    Names `n` changed profiles; raises `BadInput` as `tasks.inspection.current_profiles.written`.
    """
    before, after = _read(a, side), _read(b, side)
    both = sorted(before.texts.keys() & after.texts.keys())
    comparable = before.text_model == after.text_model
    compared = sorted(before.vectors.keys() & after.vectors.keys()) if comparable else []
    near = _cosines(compared, before, after)
    changed = [subject for subject in both if before.texts[subject] != after.texts[subject]]
    changed.sort(key=lambda subject: near.get(subject, 2.0))
    return Difference(
        side=side,
        a=before.extent,
        b=after.extent,
        both=len(both),
        same_text=len(both) - len(changed),
        compared=len(near),
        cosines=distribution(np.array(list(near.values()))),
        not_compared=None if comparable else "embedded by different text models",
        changes=[
            Change(
                id=subject,
                words=words_changed(before.texts[subject], after.texts[subject]),
                cosine=near.get(subject),
            )
            for subject in changed[:n]
        ],
    )


class _Profiles(NamedTuple):
    """One configuration's texts and vectors by id, and how many there should be."""

    extent: Extent
    texts: dict[str, str]
    vectors: dict[str, Singles]
    text_model: list[str]


def _read(configured: Configured, side: Side) -> _Profiles:
    known = written(configured, side)
    has_text = known.table.filter(pc.is_valid(known.table[TEXT]))
    ids, texts = (has_text[column].to_pylist() for column in (KEYS[side], TEXT))
    settings = configured.pipeline.embeddings_of(side)
    places, matrix = stored_vectors(settings, texts)
    vectors = {ids[place]: row for place, row in zip(places.tolist(), matrix, strict=True)}
    extent = Extent(
        config=str(configured.path),
        source=known.request.config.provider,
        subjects=known.table.num_rows,
        written=len(ids),
        embedded=len(vectors),
        command=configured.command,
    )
    return _Profiles(extent, dict(zip(ids, texts, strict=True)), vectors, identity(settings))


def _cosines(compared: list[str], before: _Profiles, after: _Profiles) -> dict[str, float]:
    """Compare the two vectors of each subject."""
    if not compared:
        return {}
    old, new = (np.stack([p.vectors[subject] for subject in compared]) for p in (before, after))
    return dict(zip(compared, cosines(old, new).tolist(), strict=True))
