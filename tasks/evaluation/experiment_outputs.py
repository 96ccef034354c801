"""What an experiment's points hand to its evaluation."""

from pathlib import Path
from typing import Literal

from models.config import ArmName, Pipeline
from tasks.dataset.outputs import Splits
from tasks.embeddings.outputs import Described
from tasks.evaluation.outputs import Evaluated
from tasks.results.database import database
from tasks.storage.artifacts import Handle, Handoff, MissingArtifact
from tasks.training.outputs import Trained

PointState = Literal["ok", "failed", "excluded"]
TrialState = Literal["complete", "pruned", "failed"]

_POINT_ROWS = Path(__file__).parent / "sql" / "count_point_rows.sql"


class Outcome(Handoff):
    """What became of a point: a row of DuckDB's `points`."""

    point: str
    overrides: str
    """JSON: its own values by dotted key."""
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
    valid_score: float | None
    state: TrialState
    is_best: bool = False


class Part(Handoff):
    """Trainings of one point that share a pipeline: all of them, or after a search one arm's."""

    point: str
    pipeline: Pipeline
    splits: Splits
    described: tuple[Described, ...]
    items: Handle
    trained: tuple[Trained, ...]
    search_trials: int = 0
    """Settings that were tried on validation before this one."""


class ExperimentEvaluated(Evaluated):
    """What the evaluation of an experiment wrote; it counts only while those rows are there."""

    n_points: int
    n_trials: int

    def verify(self) -> None:
        """Compare with what DuckDB holds.

        Raises:
            MissingArtifact: if rows are gone or were replaced by another evaluation's.
        """
        super().verify()
        with database(read_only=True) as connection:
            found = connection.execute(
                _POINT_ROWS.read_text(), self.model_dump(include={"experiment", "evaluation_id"})
            ).fetchone()
        if found != (self.n_points, self.n_trials):
            raise MissingArtifact(f"the points of {self.experiment} are gone or not these")
