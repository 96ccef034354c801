"""The spaces that ship with the models: every end of every range is a model that can be built."""

import pytest

from models.config import Search, Transfer
from models.experiments.search import Study, require_equal_trials, space_of
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import MODELS
from models.recommenders.search_spaces import _OWN, shipped_space

NOTHING_TO_SET = {"Pop", "Random"}


def ends(space, which):
    return {
        key: values.choices[which] if values.choices else (values.low, values.high)[which]
        for key, values in space.items()
    }


@pytest.mark.parametrize("takes_targets", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_both_ends_are_settings_of_the_model(model, takes_targets):
    space = shipped_space(model, takes_targets)
    own = f"models.{model}.hyperparameters."
    assert bool([key for key in space if key.startswith(own)]) == (model not in NOTHING_TO_SET)
    for which in (0, -1):
        values = ends(space, which)
        given = {k.removeprefix(own): v for k, v in values.items() if k.startswith(own)}
        hyperparameters(model, given)
        rest = {k: v for k, v in values.items() if not k.startswith(own)}
        Transfer.model_validate(
            {key.removeprefix(f"models.{model}.transfer."): value for key, value in rest.items()}
        )
        assert bool(rest) == takes_targets


def test_spaces_belong_to_models_that_there_are():
    assert set(_OWN) <= set(MODELS)
    for model in ("RecVAE", "ENMF", "SLIMElastic", "ItemKNN", "iALS", "EASE", "MultiVAE"):
        assert model in _OWN


def test_batches_of_the_slow_models_have_a_lower_bound():
    for model, least in (("BPR", 512), ("LightGCN", 4096)):
        space = shipped_space(model, False)
        assert min(space[f"models.{model}.hyperparameters.train_batch_size"].choices) >= least


def test_knowledge_adds_to_the_models_own_settings():
    for model in ("BPR", "EASE", "iALS"):
        baseline, knowing = (space_of(Search(), model, arm) for arm in ("baseline", "shuffled"))
        assert baseline.items() < knowing.items()
        assert f"models.{model}.transfer.alpha" in set(knowing) - set(baseline)


def test_an_axis_of_the_grid_is_left_out_of_the_shipped_space():
    rate = "models.BPR.hyperparameters.learning_rate"
    for held in ("transfer.alpha", "models.BPR.transfer.alpha", "models.BPR.transfer", "transfer"):
        space = space_of(Search(), "BPR", "transfer", [held])
        assert "models.BPR.transfer.alpha" not in space
        assert rate in space
    assert "models.BPR.transfer.alpha" in space_of(Search(), "BPR", "transfer", ["transfer.al"])


def test_a_model_without_settings_has_no_trials_and_blocks_nobody():
    assert space_of(Search(), "Pop", "baseline") == {}
    require_equal_trials(Search(), [("Pop", "baseline"), ("BPR", "baseline"), ("BPR", "noise")])


def test_the_first_third_is_random_and_then_scores_decide():
    """Studies with opposite scores ask for the same settings at first, and then for others."""
    search = Search(trials=12)
    asked = []
    for sign in (1, -1):
        study = Study(search, space_of(search, "iALS", "baseline"))
        settings = []
        for _ in range(12):
            settings.append(study.ask())
            study.tell(sign * settings[-1]["models.iALS.hyperparameters.reg_weight"])
        asked.append(settings)
    assert asked[0][:4] == asked[1][:4]
    assert asked[0][4:] != asked[1][4:]
    assert all(len(set(map(str, one))) == 12 for one in asked)
