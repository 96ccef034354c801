"""Rough figures of how long trainings take, for when there is no past one to go by."""

from models.config import Job
from models.recommenders.registry import entry

_SECONDS_PER_EPOCH = {
    "BPR": 0.2,
    "MultiVAE": 0.3,
    "LightGCN": 1.2,
    "SimpleX": 1.2,
    "NeuMF": 1.5,
}
"""Of one core of a shared server, validation included, ml-100k."""
_OTHERS = 2.0
_COMPUTED = 2.0
"""Seconds of a model that is computed, such as EASE."""
_MEASURED_ON = 70_000
"""Training interactions."""


def rough_seconds(job: Job, interactions: int | None = None) -> float:
    """A guess of a training's seconds: in proportion to epochs and training interactions.

    Args:
        job: the training.
        interactions: in the training part; None for as many as ml-100k has.
    """
    size = (interactions or _MEASURED_ON) / _MEASURED_ON
    if entry(job.model).loader is None:
        return _COMPUTED * size
    return _SECONDS_PER_EPOCH.get(job.model, _OTHERS) * job.budget.epochs * size
