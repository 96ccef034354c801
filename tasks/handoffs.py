"""What stages hand each other: small records of handles and facts, never data frames.

They are what Prefect persists per task, so they hold no secrets and stay a few kilobytes.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from models.config import NOT_IDENTITY, Job, Refit, Side
from models.schemas import Epoch
from tasks.storage import Handle

Provenance = Literal["train-only", "unknown", "leaky"]
_PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)


class Handoff(BaseModel):
    """Base of all hand-offs."""

    model_config = ConfigDict(frozen=True)


class Dropped(Handoff):
    """Rows that did not enter a data set, and why."""

    step: str
    rows: int
    why: str


class Intake(Handoff):
    """What was read, and what became of every row of it."""

    read: int
    """Rows of interactions in the file, `dropped` and `kept` together."""
    kept: int
    dropped: tuple[Dropped, ...] = ()
    items: tuple[Dropped, ...] = ()
    """Rows of the item file that were set aside, and items that left the catalogue."""
    notes: tuple[str, ...] = ()
    quarantine: Handle | None = None
    """Schema `QUARANTINE`; None where every row could be read."""


class Interactions(Handoff):
    """The data set: schemas `INTERACTIONS`, `ITEMS` and `USERS`.

    Demographic fields stand apart (`demographics_schema`), so that asking for one trains nothing
    anew and they reach nothing but prompts; None unless asked for.
    """

    interactions: Handle
    items: Handle
    users: Handle
    demographics: Handle | None = None
    intake: Intake | None = Field(None, json_schema_extra=NOT_IDENTITY)
    """Not part of what trainings depend on; None in results of earlier versions."""


class Splits(Handoff):
    """Schema `INTERACTIONS` three times, without overlap."""

    train: Handle
    valid: Handle
    test: Handle


class Previous(Handoff):
    """An earlier run's profiles of users, and when one of them is kept."""

    profiles: Handle
    seen: Handle
    min_new: int
    """A user with fewer new training interactions keeps the profile."""
    settings: str
    """Digest of how they were written; none is kept where that is another now."""


class Profiled(Handoff):
    """One profile per user or item (`profiles_schema`) and what they cost (`LLM_CALLS`)."""

    profiles: Handle
    calls: Handle
    source: Literal["offline", "openai", "openai-batch", "import"]
    llm_model: str | None
    prompt_hash: str
    provenance: Provenance
    missing: int
    answers_cached: int
    answers_paid: int
    cost_usd: float | None
    """Of the answers paid for; None where a price is not known."""
    unasked: int = 0
    """How many of the missing were not asked, because the budget was spent."""

    seen: Handle | None = None
    """Of users' profiles: the training interactions that there were when each was written (schema
    `INTERACTIONS`), from which its record can be recomputed."""
    kept: int = 0
    """How many profiles an earlier run wrote."""
    settings: str | None = None
    """Of users' profiles: digest of how they were written."""

    @property
    def unfinished(self) -> bool:
        """True if another run has more to ask, so that this result does not count for it."""
        return self.unasked > 0

    def previous(self, min_new: int) -> Previous | None:
        """These profiles, for a later run to keep; None where they cannot be."""
        if self.seen is None or self.settings is None:
            return None
        return Previous(
            profiles=self.profiles, seen=self.seen, min_new=min_new, settings=self.settings
        )


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


class Kept(Handoff):
    """An earlier run's reducer, what was made with it, and when it is to be fitted anew."""

    reducer: Handle
    fitted_on: Handle
    """The embeddings that it was fitted on."""
    embeddings: Handle
    """The embeddings of the earlier run's `targets`."""
    targets: Handle
    refit: Refit


class Targeted(Handoff):
    """One target per embedded user or item (`vectors("target", width, key)`)."""

    targets: Handle
    reduction: str
    width: int
    embeddings: Handle | None = None
    reducer: Handle | None = None
    """None where it is not to be kept, like `fitted_on`."""
    fitted_on: Handle | None = None
    refit: str = "first fit"
    """Why the reducer was fitted, or "kept"."""
    unchanged: int = 0
    """How many targets are the earlier run's to the bit."""
    transformed: int = 0
    """How many a kept reducer made of new or changed embeddings."""

    def kept(self, refit: Refit) -> Kept | None:
        """The reducer, for a later run to keep; None where it was not stored."""
        if self.reducer is None or self.fitted_on is None or self.embeddings is None:
            return None
        return Kept(
            reducer=self.reducer,
            fitted_on=self.fitted_on,
            embeddings=self.embeddings,
            targets=self.targets,
            refit=refit,
        )


class Trained(Handoff):
    """One trained model: what it offers, its weights and the course of training.

    `rankings` has the schema `RANKINGS`; where likes are predicted, it holds the validation
    part's `PREDICTIONS`, and `predictions` the test part's, made after training.
    """

    job: Job
    rankings: Handle
    weights: Handle
    epochs: tuple[Epoch, ...]
    best_epoch: int
    train_seconds: float
    flow_run_id: str | None
    started_at: datetime
    finished_at: datetime
    predictions: Handle | None = None
