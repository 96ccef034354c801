"""What an experiment's earlier searches tried."""

from tasks.results.database import has_database
from tasks.results.queries import reading

Tried = tuple[str, str, str, str, int]
"""Point, model, arm, search and number of a trial."""


def earlier_trials(experiment: str) -> set[Tried]:
    """Every trial of an experiment that the results database holds."""
    if not has_database():
        return set()
    with reading() as connection:
        if not connection.execute("FROM duckdb_tables() WHERE table_name = 'trials'").fetchall():
            return set()
        found = connection.execute(
            "SELECT point, model, arm, search, trial FROM trials WHERE experiment = ?",
            [experiment],
        )
        return {(*texts, trial) for *texts, trial in found.fetchall()}
