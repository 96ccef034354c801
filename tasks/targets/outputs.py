"""What the targets stage hands on."""

from models.config import Refit
from tasks.storage.artifacts import Handle, Handoff


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
