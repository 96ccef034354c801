"""What evaluation and report hand on: differences, references, and where they are written."""

from pathlib import Path

import duckdb

from tasks.results.database import database, database_path, has_database
from tasks.storage.artifacts import Handoff, MissingArtifact, Verifiable


class Difference(Handoff):
    """One arm against the baseline, or another arm, on one metric of one model, on test.

    Means and standard deviations are over seeds; see
    `models.statistics.paired_comparison.Comparison`.
    """

    model: str
    arm: str
    against: str = "baseline"
    metric: str
    k: int | None
    baseline_mean: float
    baseline_sd: float | None
    arm_mean: float
    arm_sd: float | None
    gain_percent: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_adjusted: float | None = None
    effect_size: float | None = None
    users_ci_low: float | None = None
    users_ci_high: float | None = None
    boot_ci_low: float | None = None
    boot_ci_high: float | None = None
    seeds: int
    users: int
    verdict: str
    is_primary: bool
    point: str | None = None
    """Of an experiment; None where there are none, or several share both arms."""


class Reference(Handoff):
    """A model without an arm of knowledge: what the others should beat, on test.

    Mean and standard deviation of the primary metric are over seeds.
    """

    model: str
    metric: str
    k: int | None
    mean: float
    sd: float | None
    seeds: int


class Evaluated(Handoff, Verifiable):
    """What an evaluation wrote to DuckDB; it counts only while those rows are there."""

    experiment: str
    evaluation_id: str
    config_hash: str
    git_sha: str | None
    run_ids: tuple[str, ...]
    differences: tuple[Difference, ...]
    """Against the baseline."""
    others: tuple[Difference, ...] = ()
    """Against other arms and reference models, on the primary metric."""
    references: tuple[Reference, ...] = ()
    n_contrasts: int
    """Rows in `contrasts`: those above, and the others on all metrics."""
    n_slices: int
    """Rows in `slices`."""
    n_points: int = 0
    """Rows in `points`; none for a run."""
    n_trials: int = 0
    """Rows in `trials`."""

    def verify(self) -> None:
        """Compare with what DuckDB holds.

        Raises:
            MissingArtifact: if rows are gone or were replaced by another evaluation's.
        """
        if not has_database():
            raise MissingArtifact(f"{database_path()} is gone")
        try:
            with database(read_only=True) as connection:
                found = connection.execute(
                    _EVALUATION_ROWS.read_text(), self.model_dump(include=_EVALUATION_KEYS)
                ).fetchone()
        except duckdb.CatalogException as error:
            raise MissingArtifact(f"{database_path()} lacks a table: {error}") from error
        rows = len(self.run_ids), self.n_contrasts, self.n_slices, self.n_points, self.n_trials
        if found != (*rows, 0):
            raise MissingArtifact(
                f"{database_path()} no longer holds evaluation {self.evaluation_id} of "
                f"{self.experiment}"
            )


_EVALUATION_KEYS = {"experiment", "evaluation_id", "config_hash", "run_ids"}
_EVALUATION_ROWS = Path(__file__).parent / "sql" / "count_evaluation_rows.sql"
