"""What an evaluation is given: trained points, what became of each, and a search's trials."""

from typing import Literal

from models.config import ArmName, Pipeline
from tasks.dataset.outputs import Splits
from tasks.embeddings.outputs import Described
from tasks.storage.artifacts import Handle, Handoff
from tasks.training.outputs import Trained

PointState = Literal["ok", "failed", "excluded"]
TrialState = Literal["complete", "pruned", "failed"]


class Part(Handoff):
    """Trainings that share a pipeline: a run's, a point's, or after a search one arm's of a point.

    Attributes:
        point: its name; None for a run, which has no points.
        search_trials: settings that were tried on validation in the experiment's history.
    """

    point: str | None = None
    pipeline: Pipeline
    splits: Splits
    described: tuple[Described, ...]
    items: Handle
    trained: tuple[Trained, ...] = ()
    search_trials: int = 0


class PointResult(Handoff):
    """How a point of an experiment ended: a row of DuckDB's `points`."""

    point: str
    overrides: str
    """JSON: its own values by dotted key."""
    pool: str | None = None
    """Its name in comparisons: points of one pool differ in their split's seed alone."""
    state: PointState
    reason: str | None = None


class Trial(Handoff):
    """One setting that a search tried: a row of DuckDB's `trials`.

    `valid_score` is the best over the training's epochs; None where it failed.
    """

    point: str
    model: str
    arm: ArmName
    trial: int
    params: str
    """JSON, by dotted key."""
    search: str
    """16 hex digits over what was searched; with `trial` it names the trial in the history."""
    valid_score: float | None
    state: TrialState
    is_best: bool = False
