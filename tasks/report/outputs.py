"""What the report stage hands on."""

from models.statistics.contrasts import Contrast
from tasks.evaluation.outputs import Reference
from tasks.storage.artifacts import Handle, Handoff


class Reported(Handoff):
    """The comparison and its report: the immutable one, and its copy under a stable name."""

    comparison: tuple[Contrast, ...]
    references: tuple[Reference, ...]
    report: Handle
    page: Handle
