"""New interactions into the data set, before everything else."""

from pathlib import Path

from flows.steps.stage_runner import Stages
from tasks.dataset.incoming_task import SETTLE_SECONDS, Folded, drops, fold_in, incoming
from tasks.dataset.outputs import Interactions


def fold_drops(
    base: Interactions, folder: Path, stages: Stages, settle_seconds: float = SETTLE_SECONDS
) -> Folded:
    """Fold every drop of `folder` into `base`; only drops that are new are read.

    Args:
        base: the data set without drops.
        folder: where drops arrive; need not exist.
        stages: runs and records.
        settle_seconds: as in `drops`.
    """
    found = drops(folder, settle_seconds)
    read = [stages.run(incoming, drop) for drop in found.files]
    folded: Folded = stages.run(fold_in, base, read)
    return folded.model_copy(update={"waiting": found.waiting})
