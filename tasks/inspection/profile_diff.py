"""Two configurations' profiles side by side: words, vectors, and what is not there yet."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel

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

    Raises:
        BadInput: as `tasks.inspection.current_profiles.written`.
    """
    before, after = _Side.of(a, side), _Side.of(b, side)
    both = sorted(before.texts.keys() & after.texts.keys())
    comparable = before.text_model == after.text_model
    compared = [token for token in both if token in before.vectors and token in after.vectors]
    near = _near(compared if comparable else [], before, after)
    changed = [token for token in both if before.texts[token] != after.texts[token]]
    changed.sort(key=lambda token: near.get(token, 2.0))
    return Difference(
        side=side,
        a=before.extent(),
        b=after.extent(),
        both=len(both),
        same_text=len(both) - len(changed),
        compared=len(near),
        cosines=distribution(np.array(list(near.values()))),
        not_compared=None if comparable else "embedded by different text models",
        changes=[
            Change(
                id=token,
                words=words_changed(before.texts[token], after.texts[token]),
                cosine=near.get(token),
            )
            for token in changed[:n]
        ],
    )


@dataclass(frozen=True)
class _Side:
    """One configuration's texts and vectors by id, and how many there should be."""

    configured: Configured
    source: str
    subjects: int
    texts: dict[str, str]
    vectors: dict[str, NDArray[np.float32]]
    text_model: list[str]

    @classmethod
    def of(cls, configured: Configured, side: Side) -> "_Side":
        pipeline = configured.pipeline
        known = written(configured, side)
        has_text = known.table.filter(pc.is_valid(known.table[TEXT]))
        ids, texts = (has_text[column].to_pylist() for column in (KEYS[side], TEXT))
        settings = pipeline.embeddings_of(side)
        places, matrix = stored_vectors(settings, texts)
        vectors = {ids[place]: row for place, row in zip(places.tolist(), matrix, strict=True)}
        return cls(
            configured=configured,
            source=known.request.config.provider,
            subjects=known.table.num_rows,
            texts=dict(zip(ids, texts, strict=True)),
            vectors=vectors,
            text_model=identity(settings),
        )

    def extent(self) -> Extent:
        return Extent(
            config=str(self.configured.path),
            source=self.source,
            subjects=self.subjects,
            written=len(self.texts),
            embedded=len(self.vectors),
            command=self.configured.command,
        )


def _near(compared: list[str], before: _Side, after: _Side) -> dict[str, float]:
    """The cosine of the two vectors of each of `compared`."""
    if not compared:
        return {}
    old, new = (np.stack([of.vectors[token] for token in compared]) for of in (before, after))
    return dict(zip(compared, cosines(old, new).tolist(), strict=True))
