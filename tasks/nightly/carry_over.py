"""What a night takes over from the champion: profiles, reducers and, if asked for, weights."""

from models.config import Side
from models.recommenders.registry import entry
from tasks.execution.stage import verify
from tasks.nightly.night import Night
from tasks.profiles.outputs import Previous
from tasks.storage.artifacts import Handle, MissingArtifact
from tasks.targets.outputs import Kept
from tasks.training.worker import starting_point


def earlier_profiles(night: Night) -> dict[Side, Previous]:
    """The champion's profiles, by side, under tonight's policy; those alone that are whole."""
    if night.champion is None:
        return {}
    return {
        side: of.model_copy(
            update={"min_new": night.pipeline.profiles_of(side).min_new_interactions}
        )
        for side, of in night.champion.profiles.items()
        if _whole(of)
    }


def earlier_reducers(night: Night) -> dict[str, Kept]:
    """The champion's reducers, under tonight's policy; those alone that are whole."""
    if night.champion is None:
        return {}
    refit = night.pipeline.targets.refit
    return {
        name: of.model_copy(update={"refit": refit})
        for name, of in night.champion.reducers.items()
        if _whole(of)
    }


def _whole(kept: Kept | Previous) -> bool:
    """Whether all artifacts are there; a night goes on without what was deleted."""
    try:
        verify(kept)
    except MissingArtifact:
        return False
    return True


def starting_point_of(night: Night) -> Handle | None:
    """The champion's weights for a warm start, if one is asked for.

    A champion that is another model, or has other hyper-parameters, is no start for this one, and
    neither is a model that is computed: then the start is cold.

    Raises:
        MissingArtifact: if the champion is not whole.
    """
    champion, pipeline = night.champion, night.pipeline
    model = night.training[0]
    wanted = model, pipeline.models[model].hyperparameters
    if champion is None or pipeline.nightly.start == "cold" or entry(model).loader is None:
        return None
    if (champion.job.model, champion.job.hyperparameters) != wanted:
        return None
    return starting_point(*champion.trained_model())
