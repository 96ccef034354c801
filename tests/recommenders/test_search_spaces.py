"""The spaces that ship with the models: every end of every range is a model that can be built."""

import pytest

from models.config import Search, Transfer
from models.config.plugins import is_path
from models.experiments import search as search_module
from models.experiments.search import Study, require_equal_trials, space_of, start_of
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import MODELS, entry
from models.recommenders.search_spaces import _OWN, _TRAINED, shipped_space

NOTHING_TO_SET = {"Pop", "Random"}


def ends(space, which):
    return {
        key: values.choices[which] if values.choices else (values.low, values.high)[which]
        for key, values in space.items()
    }


@pytest.mark.parametrize("transfer", [None, Transfer(), Transfer(alignment="mapped")])
@pytest.mark.parametrize("model", MODELS)
def test_both_ends_are_settings_of_the_model(model, transfer):
    space = shipped_space(model, transfer)
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
        assert bool(rest) == (transfer is not None)


def test_spaces_belong_to_models_that_there_are():
    assert {model for model in _OWN if not is_path(model)} <= set(MODELS)
    for model in filter(is_path, _OWN):  # comparators
        trained = set(_TRAINED) if entry(model).by_gradient else set()
        assert set(_OWN[model]) <= set(entry(model).defaults) | trained
    for model in ("RecVAE", "ENMF", "SLIMElastic", "ItemKNN", "iALS", "EASE", "MultiVAE"):
        assert model in _OWN


def test_batches_of_the_slow_models_have_a_lower_bound():
    for model, least in (("BPR", 512), ("LightGCN", 4096)):
        space = shipped_space(model, None)
        assert min(space[f"models.{model}.hyperparameters.train_batch_size"].choices) >= least


def test_knowledge_adds_to_the_models_own_settings():
    for model in ("BPR", "EASE", "iALS"):
        baseline, knowing = (space_of(Search(), model, arm) for arm in ("baseline", "shuffled"))
        assert baseline.items() < knowing.items()
        assert f"models.{model}.transfer.alpha" in set(knowing) - set(baseline)


@pytest.mark.parametrize("model", ["BPR", "MultiVAE", "EASE", "iALS"])
def test_an_automatic_strength_is_searched_with_nothing_among_the_choices(model):
    """Also where the search has a space of its own, unless that says what to try."""
    alpha, reg = f"models.{model}.transfer.alpha", f"models.{model}.hyperparameters.reg_weight"
    own = Search.model_validate({"space": {reg: {"low": 1.0, "high": 2.0}}})
    for search in (Search(), own):
        assert 0 in space_of(search, model, "transfer")[alpha].choices
        assert alpha in space_of(search, model, "shuffled")
        assert alpha not in space_of(search, model, "baseline")
        assert alpha not in space_of(search, model, "transfer", transfer=Transfer(alpha=0.1))
    said = Search.model_validate(
        {"space": {reg: {"choices": [1]}, "transfer.alpha": {"low": 0.1, "high": 0.2}}}
    )
    assert space_of(said, model, "transfer").keys() == said.space.keys()


def test_a_search_has_settings_of_the_alignment():
    mapped = shipped_space("BPR", Transfer(alignment="mapped"))
    assert {"models.BPR.transfer.shrinkage", "models.BPR.transfer.ridge"} < set(mapped)
    assert "models.BPR.transfer.scale" in mapped
    assert "models.BPR.transfer.ridge" not in shipped_space("BPR", Transfer())
    assert "models.BPR.transfer.scale" not in shipped_space("BPR", Transfer(alignment="cosine"))
    taught = shipped_space("MultiVAE", Transfer(alignment="teacher"))
    assert {f"models.MultiVAE.transfer.teacher.{key}" for key in ("alpha", "temperature")} < set(
        taught
    )
    assert "models.MultiVAE.transfer.scale" not in taught
    assert "models.iALS.transfer.ridge" not in shipped_space("iALS", Transfer(alignment="mapped"))


@pytest.mark.parametrize("alignment", ["rmse", "mapped", "teacher"])
def test_a_model_that_takes_embeddings_whole_has_nothing_of_the_alignment(alignment):
    model = "models.recommenders.comparators.text_features:TextFeatures"
    space = shipped_space(model, Transfer(alignment=alignment))
    assert [key for key in space if ".transfer." in key] == [f"models.{model}.transfer.alpha"]


def test_an_axis_of_the_grid_is_left_out_of_the_shipped_space():
    rate = "models.BPR.hyperparameters.learning_rate"
    for held in ("transfer.scale", "models.BPR.transfer.scale", "models.BPR.transfer", "transfer"):
        space = space_of(Search(), "BPR", "transfer", [held])
        assert "models.BPR.transfer.scale" not in space
        assert rate in space
    assert "models.BPR.transfer.scale" in space_of(Search(), "BPR", "transfer", ["transfer.sc"])


def test_a_model_without_settings_has_no_trials_and_blocks_nobody():
    assert space_of(Search(), "Pop", "baseline") == {}
    require_equal_trials(Search(), [("Pop", "baseline"), ("BPR", "baseline"), ("BPR", "noise")])


def test_the_first_third_is_random_and_then_scores_decide():
    """Studies with opposite scores ask for the same settings at first, and then for others."""
    search = Search(trials=12)
    asked = []
    for sign in (1, -1):
        study = Study(search, space_of(search, "iALS", "baseline"), {}, 2026)
        settings = []
        for _ in range(12):
            settings.append(study.ask())
            study.tell(sign * settings[-1]["models.iALS.hyperparameters.reg_weight"])
        asked.append(settings)
    assert asked[0][:4] == asked[1][:4]
    assert asked[0][4:] != asked[1][4:]
    assert all(len(set(map(str, one))) == 12 for one in asked)


def first(model, arm, split=2026, given=None, trials=12):
    """The settings of a study's first third."""
    search = Search(trials=trials)
    space = space_of(search, model, arm)
    study = Study(search, space, start_of(space, model, given or {}), split)
    settings = []
    for _ in range(trials // 3):
        settings.append(study.ask())
        study.tell(0.0)
    return settings


def test_a_search_begins_with_the_models_own_settings():
    head = "models.iALS.hyperparameters"
    own = {f"{head}.reg_exponent": 1.0, f"{head}.reg_weight": 0.016}
    assert own.items() < first("iALS", "baseline")[0].items()
    assert first("iALS", "baseline", given={"reg_weight": 0.1})[0][f"{head}.reg_weight"] == 0.1
    assert first("iALS", "baseline", given={"reg_weight": 7.0})[0][f"{head}.reg_weight"] == 0.3
    assert first("iALS", "transfer")[0][f"{head}.prior_reg"] == 10.0


@pytest.mark.parametrize("model", ["iALS", "EASE", "BPR", "MultiVAE", "Blend"])
def test_arms_of_a_model_begin_alike_where_they_share_a_setting(model):
    baseline, knowledge = first(model, "baseline"), first(model, "transfer")
    assert len(set(map(str, baseline))) == len(baseline) == 4
    for plain, informed in zip(baseline, knowledge, strict=True):
        assert plain.items() <= informed.items()
        assert len(informed) > len(plain)


def test_luck_is_another_on_another_split():
    one, other = first("iALS", "baseline", 101), first("iALS", "baseline", 102)
    assert one[0] == other[0]
    assert all(one[n] != other[n] for n in (1, 2, 3))


def test_a_default_that_is_no_number_is_no_start(monkeypatch):
    monkeypatch.setattr(search_module, "hyperparameters", lambda *_: {"k": None, "shrink": 10.0})
    space = space_of(Search(), "ItemKNN", "baseline")
    start = start_of(space, "ItemKNN", {})
    assert start == {"models.ItemKNN.hyperparameters.shrink": 10.0}
