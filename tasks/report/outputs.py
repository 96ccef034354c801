"""What the report stages hand on."""

from typing import Literal

from models.config import Side
from models.statistics.contrasts import Contrast
from tasks.evaluation.outputs import Reference
from tasks.storage.artifacts import Handle, Handoff


class Mapped(Handoff):
    """A map of one side's profiles for the report: `id`, `x`, `y`, `genre`, `text`."""

    side: Side
    points: Handle
    method: Literal["umap", "pca"]
    total: int
    """How many have an embedding; more than `points.rows` where a sample is shown."""


class Reported(Handoff):
    """The comparison and its report: the immutable one, and its copy under a stable name."""

    comparison: tuple[Contrast, ...]
    references: tuple[Reference, ...]
    report: Handle
    page: Handle
