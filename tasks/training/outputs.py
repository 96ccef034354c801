"""What a training hands on."""

from datetime import datetime

from models.config import Job
from models.schemas import Epoch
from tasks.storage.artifacts import Handle, Handoff


class Trained(Handoff):
    """One trained model: its rankings, its weights and the course of training.

    `rankings` has the schema `RANKINGS`; where likes are predicted, it holds the validation
    part's `PREDICTIONS`, and `predictions` the test part's, made after training. `valid_error` is
    the standard error of the best epoch's score where a sample of the users was validated on.
    `weights` is None for a search's trial and for rankings made elsewhere.
    """

    job: Job
    rankings: Handle
    weights: Handle | None
    epochs: tuple[Epoch, ...]
    best_epoch: int
    train_seconds: float
    flow_run_id: str | None
    started_at: datetime
    finished_at: datetime
    predictions: Handle | None = None
    valid_error: float | None = None

    @property
    def kept_weights(self) -> Handle:
        """The weights of a training that was asked to keep them."""
        assert self.weights is not None
        return self.weights
