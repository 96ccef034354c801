"""The provider `items`: users are described by the mean of their items' profiles."""

from models.errors import BadInput
from tasks.profiles.outputs import Profiled
from tasks.profiles.request import Basis, Request


def basis(_: Request) -> Basis | None:
    """Such users have no text."""
    return None


def write(_: Request) -> Profiled:
    """Refuse: the stage *pooling* describes these users, from the items' embeddings."""
    raise BadInput(
        "profiles.provider items: users are described by their items, so they have no profiles of "
        "their own. Show the items' profiles with --side items"
    )
