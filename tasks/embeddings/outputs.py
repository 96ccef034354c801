"""What the embeddings stages hand on."""

from collections.abc import Iterable, Sequence
from typing import get_args

from models.config import Side
from tasks.profiles.outputs import Profiled, Provenance
from tasks.storage.artifacts import Handle, Handoff

_PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)


class Embedded(Handoff):
    """One embedding per user or item with a profile (`vectors("embedding", width, key)`)."""

    embeddings: Handle
    model: str
    width: int
    texts_cached: int
    texts_embedded: int
    missing: int = 0
    provenance: Provenance | None = None
    """Of imported vectors, which have no profiles here; None where the profiles' holds."""


class Described(Handoff):
    """What is known of one side; imported vectors have no profiles here."""

    side: Side
    profiled: Profiled | None
    embedded: Embedded
    pooled: bool = False
    """Users only: whether `embedded` is the mean of their items' vectors."""
    of_items: Profiled | None = None
    """The items' profiles, where users are described by those."""

    @property
    def written(self) -> Profiled | None:
        """The profiles that the vectors come from, the items' where users have none."""
        return self.profiled or self.of_items

    @property
    def source(self) -> str:
        """Who wrote the knowledge."""
        writer = self.written.source if self.written else "import"
        return f"{writer} (items)" if self.pooled else writer

    @property
    def provenance(self) -> Provenance:
        """What it may have seen; imported vectors speak for themselves."""
        of_vectors = self.embedded.provenance or "unknown"
        return self.written.provenance if self.written else of_vectors


def origin(described: Sequence[Described]) -> dict[str, str | None]:
    """Who wrote the knowledge and what it may have seen: the columns of `runs` by that name.

    Of both sides' sources each is named, of their provenances the worse one.
    """
    worst = sorted((of.provenance for of in described), key=_PROVENANCES.index)
    return {
        "profile_source": _each(of.source for of in described),
        "profile_provenance": worst[-1] if worst else None,
    }


def knowledge(described: Sequence[Described]) -> dict[str, str | None]:
    """The columns of `runs` that say where transferred knowledge comes from."""
    profiled = [of.written for of in described if of.written]
    return {
        "prompt_hash": _each(of.prompt_hash for of in profiled),
        **origin(described),
        "llm_model": _each(of.llm_model for of in profiled if of.llm_model),
        "embedding_model": _each(of.embedded.model for of in described),
    }


def _each(values: Iterable[str]) -> str | None:
    """Different values, each once: `offline`, or `openai, offline` of users and items."""
    return ", ".join(dict.fromkeys(values)) or None
