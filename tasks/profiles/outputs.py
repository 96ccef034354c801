"""What the profiles stage hands on."""

from typing import Literal

from tasks.storage.artifacts import Handle, Handoff

Provenance = Literal["none seen", "train-only", "unknown", "leaky"]
"""Which interactions a profile may have seen, the best first."""


class Previous(Handoff):
    """An earlier run's profiles of users, and when one of them is kept."""

    profiles: Handle
    seen: Handle
    min_new: int
    """A user with fewer new training interactions keeps the profile."""
    settings: str
    """Digest of how they were written; none is kept where it differs now."""


class Profiled(Handoff):
    """One profile per user or item (`profiles_schema`) and what they cost (`LLM_CALLS`)."""

    profiles: Handle
    calls: Handle
    source: str
    """The provider."""
    llm_model: str | None = None
    prompt_hash: str
    provenance: Provenance
    missing: int = 0
    answers_cached: int = 0
    answers_paid: int = 0
    cost_usd: float | None = 0.0
    """Of the answers paid for; None where a price is not known."""
    warnings: tuple[str, ...] = ()
    """What a reader of results must know of these profiles."""
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
        """Return these profiles for a later run to keep; None where they cannot be."""
        if self.seen is None or self.settings is None:
            return None
        return Previous(
            profiles=self.profiles, seen=self.seen, min_new=min_new, settings=self.settings
        )
