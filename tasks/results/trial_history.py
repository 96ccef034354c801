"""What an experiment's earlier searches tried."""

from tasks.results.database import has_database
from tasks.results.queries import reading

Tried = tuple[str, str, str, str]
"""Point, model, arm and the cache key of the training."""


def earlier_trials(experiment: str) -> set[Tried]:
    """Every trial of an experiment that the results database holds."""
    if not has_database():
        return set()
    with reading() as connection:
        if not connection.execute("FROM duckdb_tables() WHERE table_name = 'trials'").fetchall():
            return set()
        found = connection.execute(
            "SELECT point, model, arm, training FROM trials WHERE experiment = ?", [experiment]
        )
        return {(point, model, arm, training) for point, model, arm, training in found.fetchall()}
