"""Checks of an experiment before anything runs."""

from flows.grid.hyperparameter_search import Searched, searches_of
from flows.steps.preparation import Bench
from models.errors import BadInput
from tasks.config.experiment_file import Loaded


def checked(loaded: Loaded, bench: Bench) -> list[Searched]:
    """Look into every point's models before anything runs.

    Returns:
        The searches of all points, if the experiment has one.

    Raises:
        BadInput: naming file and point.
    """
    searches = []
    for chosen in loaded.points:
        try:
            bench.entered(chosen.pipeline)
        except BadInput as error:
            raise BadInput(f"{chosen.where}: {error}") from error
        if loaded.config.search is not None:
            searches += searches_of(chosen, loaded.config.search, bench)
    return searches


def workers_of(loaded: Loaded) -> int:
    """How many trainings at the same time, if nobody says."""
    return max(chosen.pipeline.training.workers for chosen in loaded.points)
