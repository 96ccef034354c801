"""What the evaluation hands on: contrasts, references, and how to find its rows in DuckDB."""

import duckdb

from models.recommenders.registry import ELSEWHERE, judged
from models.report import wording
from models.statistics.contrasts import Contrast
from tasks.results.database import database, database_path, has_database
from tasks.storage.artifacts import Handoff, MissingArtifact, Verifiable
from tasks.storage.sql_scripts import script


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

    def sentence(self) -> str:
        """The value to beat: `EASE, without knowledge: NDCG@10 0.4252`."""
        value = wording.mean_and_sd(self.mean, self.sd)
        name = wording.metric_name(self.metric, self.k)
        elsewhere = judged(self.model) is ELSEWHERE
        kind = "trained elsewhere" if elsewhere else "without knowledge"
        return f"{self.model}, {kind}: {name} {value}"


class Evaluated(Handoff, Verifiable):
    """What an evaluation wrote to DuckDB; it counts only while those rows are there."""

    experiment: str
    evaluation_id: str
    config_hash: str
    family: str
    """16 hex digits over the claims, declared before test was scored."""
    git_sha: str | None
    run_ids: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    """With the baseline."""
    references: tuple[Reference, ...] = ()
    n_contrasts: int
    """Rows in `contrasts`: those above, and those with other arms and reference models."""
    n_slices: int
    """Rows in `slices`."""
    n_points: int = 0
    """Rows in `points`; none for a run."""
    n_trials: int = 0
    """Rows in `trials`."""

    def verify(self) -> None:
        """Compare with DuckDB; MissingArtifact if rows are gone or were replaced by others."""
        if not has_database():
            raise MissingArtifact(f"{database_path()} is gone")
        wanted = self.model_dump(include=_EVALUATION_KEYS)
        with database(read_only=True) as connection:
            try:
                found = connection.execute(
                    script("evaluation/count_evaluation_rows"), wanted
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
