"""What the embeddings stages hand on."""

from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import Field

from models.config import Side
from tasks.profiles.outputs import Profiled, Provenance
from tasks.storage.artifacts import Handle, Handoff

_PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)


class Embedded(Handoff):
    """One embedding per user or item with a profile (`vectors("embedding", width, key)`)."""

    embeddings: Handle
    model: str
    width: int
    texts_cached: int = 0
    texts_embedded: int = 0
    missing: int = 0
    warnings: tuple[str, ...] = ()
    """What a reader of results must know of these vectors."""
    provenance: Provenance | None = None
    """Of imported vectors, which have no profiles here; None where the profiles' holds."""


class Described(Handoff):
    """What is known of one side; imported vectors have no profiles here."""

    side: Side
    profiled: Profiled | None
    embedded: Embedded
    pooled: bool = False
    """Users only: whether `embedded` is the mean of their items' vectors."""
    item_profiles: Profiled | None = None
    """The items' profiles, where they describe users."""
    further: dict[str, Provenance] = Field({})
    """Further sources of knowledge in `embedded`, and what each may have seen."""

    @property
    def written(self) -> Profiled | None:
        """The profiles that the vectors come from, the items' where users have none."""
        return self.profiled or self.item_profiles

    @property
    def source(self) -> str:
        """Who wrote the knowledge, with all sources: `import + offline + genres`."""
        first = [self.written.source] if self.written else []
        writers = " + ".join([*first, *self.further]) or "import"
        return f"{writers} (items)" if self.pooled else writers

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of results must know of the knowledge: whose, and what."""
        side = "items" if self.item_profiles else self.side
        written, embedded = self.written, self.embedded
        found = [*(written.warnings if written else ()), *embedded.warnings]
        if written and written.missing and not written.warnings:
            found.append(f"{written.missing} have no profile")
        found += [f"{embedded.missing} have no vector"] * (embedded.missing > 0)
        return tuple(f"{side.capitalize()}: {warning}." for warning in found)

    @property
    def provenance(self) -> Provenance:
        """Which interactions it may have seen; imported vectors have a provenance of their own."""
        seen = [self.written.provenance] if self.written else []
        seen += [self.embedded.provenance] if self.embedded.provenance else []
        seen += self.further.values()
        return max(seen, key=_PROVENANCES.index, default="unknown")


def origin(described: Sequence[Described]) -> dict[str, str | None]:
    """Say who wrote the knowledge and what it may have seen: the columns of `runs` by that name.

    The sources of both sides are named, the worse of their provenances, and all their warnings.
    """
    worst = max(map(_PROVENANCES.index, (side.provenance for side in described)), default=None)
    return {
        "profile_source": _joined(side.source for side in described),
        "profile_provenance": None if worst is None else _PROVENANCES[worst],
        "warnings": "\n".join(dict.fromkeys(w for side in described for w in side.warnings))
        or None,
    }


def knowledge(described: Sequence[Described]) -> dict[str, str | None]:
    """Return the columns of `runs` that say where transferred knowledge comes from."""
    profiled = [side.written for side in described if side.written]
    return {
        "prompt_hash": _joined(profiles.prompt_hash for profiles in profiled),
        **origin(described),
        "llm_model": _joined(profiles.llm_model for profiles in profiled if profiles.llm_model),
        "embedding_model": _joined(side.embedded.model for side in described),
    }


def _joined(values: Iterable[str]) -> str | None:
    """Different values, each once: `offline`, or `openai, offline` of users and items."""
    return ", ".join(dict.fromkeys(values)) or None
