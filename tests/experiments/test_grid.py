"""Expansion of an experiment into points: order, names, exclusions, and what is refused."""

import pytest
from pydantic import ValidationError

from models.config import Experiment, Search
from models.errors import BadInput
from models.experiments.grid import expand, merged
from models.experiments.search import Study, require_equal_trials, space_of

BASE = {"models": {"BPR": {}, "EASE": {}}, "transfer": {"alpha": 0.5, "side": "users"}}


def points(**fields):
    return expand(Experiment.model_validate({"experiment": "e", "base": {}} | fields), BASE)


def names(**fields):
    return [point.name for point in points(**fields)]


def test_every_combination_is_a_point_and_the_last_axis_turns_fastest():
    grid = {"transfer.alpha": [0.1, 0.2], "targets.reduction": ["umap", "pca"]}
    assert names(grid=grid) == [
        "alpha=0.1 reduction=umap",
        "alpha=0.1 reduction=pca",
        "alpha=0.2 reduction=umap",
        "alpha=0.2 reduction=pca",
    ]
    second = points(grid=grid)[1]
    assert second.settings["transfer"] == {"alpha": 0.1, "side": "users"}
    assert second.settings["targets"] == {"reduction": "pca"}
    assert BASE["transfer"]["alpha"] == 0.5


def test_names_are_as_short_as_tells_axes_apart():
    grid = {
        "models.BPR.tap": [None, {"name": "user_embedding", "stop": 2}],
        "models.EASE.tap": [None],
        "training.seeds": [[1, 2]],
    }
    assert names(grid=grid) == [
        "BPR.tap=null EASE.tap=null seeds=[1,2]",
        "BPR.tap=user_embedding[:2] EASE.tap=null seeds=[1,2]",
    ]


def test_named_points_stand_beside_the_grid_and_without_both_the_base_is_the_point():
    assert names() == ["base"]
    assert names(grid={"transfer.alpha": [0.1]}, points={"mine": {"transfer.alpha": 0.9}}) == [
        "alpha=0.1",
        "mine",
    ]


def test_overrides_go_over_the_base_and_a_points_own_over_them():
    first, second = points(
        overrides={"transfer.alpha": 0.3, "transfer.side": "items"},
        points={"a": {}, "b": {"transfer.alpha": 0.4}},
        models=["BPR"],
        arms=["baseline"],
        seeds=[5],
    )
    assert first.settings["transfer"] == {"alpha": 0.3, "side": "items"}
    assert second.settings["transfer"] == {"alpha": 0.4, "side": "items"}
    assert first.settings["models"] == {"BPR": {}}
    assert first.settings["training"] == {"arms": ["baseline"], "seeds": [5]}
    assert first.settings["experiment"] == "e"


def test_exclusions_leave_out_what_has_all_their_values():
    found = points(
        grid={"transfer.alpha": [0.1, 0.2], "targets.reduction": ["umap", "pca"]},
        exclude=[{"transfer.alpha": 0.2, "targets.reduction": "pca"}],
    )
    assert [point.excluded for point in found] == [
        None,
        None,
        None,
        "exclude: transfer.alpha=0.2, targets.reduction=pca",
    ]
    with pytest.raises(BadInput, match=r"no point of the grid has transfer\.alpha=0\.7"):
        points(grid={"transfer.alpha": [0.1]}, exclude=[{"transfer.alpha": 0.7}])


def test_a_grid_that_is_too_large_says_how_large_without_being_made():
    grid = {f"transfer.k{n}": list(range(100)) for n in range(9)}
    with pytest.raises(BadInput, match=r"the grid has 1000000000000000000 points \(transfer\.k0 "):
        points(grid=grid)
    with pytest.raises(
        BadInput,
        match=r"3 points \(transfer\.alpha 2, named points 1; before exclusions\), more than "
        r"max_points, 2",
    ):
        points(grid={"transfer.alpha": [0.1, 0.2]}, points={"a": {}}, max_points=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": {"transfer.alpha": [0.1, 0.1]}}, "2 points are called alpha=0.1"),
        ({"models": ["NeuMF"]}, r"models: the base has no NeuMF\. Set some of BPR, EASE"),
        ({"overrides": {"transfer.alpha.x": 1}}, "overrides: transfer.alpha.x: alpha is a value"),
        ({"points": {"a": {"transfer..x": 1}}}, "point a: 'transfer..x' is not a dotted key"),
    ],
)
def test_what_cannot_be_a_grid(fields, message):
    with pytest.raises(BadInput, match=message):
        points(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": {"transfer.alpha": []}}, "transfer.alpha has no values"),
        ({"grid": {"evaluation.k": [[5]]}}, "evaluation.k is the same for all points"),
        ({"points": {"a": {"experiment": "b"}}}, "experiment is the same for all points"),
        (
            {
                "grid": {"transfer.alpha": [1]},
                "search": {"space": {"transfer.alpha": {"low": 0, "high": 1}}},
            },
            "transfer.alpha: an axis of the grid cannot be searched",
        ),
        ({"search": {"space": {"training.epochs": {"low": 1, "high": 9}}}}, "leave it out"),
        ({"search": {"space": {"transfer.alpha": {"low": 1, "high": 0}}}}, "low 1 is above high 0"),
        ({"search": {"space": {"transfer.alpha": {"low": 1}}}}, "needs low and high, or choices"),
    ],
)
def test_what_an_experiment_file_may_not_say(fields, message):
    with pytest.raises(ValidationError, match=message):
        points(**fields)


def test_a_preset_goes_below():
    below = {"transfer": {"alpha": 0.5, "balance": "none"}, "training": {"epochs": 20}}
    above = {"transfer": {"alpha": 0.1}, "training": None, "experiment": "e"}
    assert merged(below, above) == {
        "transfer": {"alpha": 0.1, "balance": "none"},
        "training": None,
        "experiment": "e",
    }


SPACE = {
    "models.BPR.hyperparameters.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "models.BPR.transfer.alpha": {"low": 0.1, "high": 0.9},
    "models.EASE.hyperparameters.reg_weight": {"low": 1, "high": 9, "step": 2},
    "transfer.schedule": {"choices": ["joint", "two-phase"]},
}


def search(**changes):
    return Search.model_validate({"space": SPACE, "trials": 4} | changes)


def test_a_baseline_is_searched_over_what_concerns_it():
    searched = search()
    rate, alpha, reg, schedule = SPACE
    assert list(space_of(searched, "BPR", "baseline")) == [rate]
    assert list(space_of(searched, "BPR", "shuffled")) == [rate, alpha, schedule]
    assert list(space_of(searched, "EASE", "baseline")) == [reg]


def test_an_arm_without_trials_is_refused():
    alone = search(space={"transfer.schedule": SPACE["transfer.schedule"]})
    with pytest.raises(BadInput, match=r"nothing for BPR baseline, .* fewer trials than transfer"):
        require_equal_trials(alone, [("BPR", "baseline"), ("BPR", "transfer")])
    with pytest.raises(BadInput, match=r"space\.models\.EASE.*trains no such model"):
        require_equal_trials(search(), [("BPR", "baseline")])
    require_equal_trials(search(), [("BPR", "baseline"), ("BPR", "transfer"), ("EASE", "baseline")])


def asked(study, scores):
    settings = []
    for score in scores:
        settings.append(study.ask())
        study.tell(score)
    return settings


def test_a_study_told_the_same_asks_the_same():
    space = space_of(search(), "BPR", "transfer")
    scores = [0.1 * n for n in range(14)]
    whole = asked(Study(search(), space, {}, 1), scores)
    again = Study(search(), space, {}, 1)
    assert asked(again, scores[:12]) == whole[:12]
    assert again.ask() == whole[12]
    assert whole[0]["transfer.schedule"] in ("joint", "two-phase")
    assert asked(Study(search(seed=2), space, {}, 1), scores) != whole


def test_a_short_training_below_the_median_ends_a_trial():
    study = Study(search(pruning="median"), space_of(search(), "EASE", "baseline"), {}, 1)
    pruned = []
    for short in (0.5, 0.4, 0.45, 0.6):
        assert study.ask()["models.EASE.hyperparameters.reg_weight"] in (1, 3, 5, 7, 9)
        pruned.append(study.prune(short))
        if not pruned[-1]:
            study.tell(short)
    # Medians of those before: none, 0.5, 0.45, 0.45.
    assert pruned == [False, True, False, False]
    assert len(study._study.trials) == 4
