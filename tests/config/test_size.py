"""The dial `size`: what each position sets, and what goes over it."""

import pytest
import yaml

from models.config import Experiment, Pipeline
from models.errors import BadInput
from tasks.config.experiment_file import load_experiment
from tasks.config.pipeline_file import load
from tasks.storage.artifacts import PROJECT_ROOT

BUDGETS = {
    "quick": (5, 3, (1,)),
    "default": (30, 5, (1, 2)),
    "thorough": (60, 10, (1, 2, 3, 4, 5)),
}
TRIALS = {"quick": 4, "default": 20, "thorough": 40}
SPACE = {"transfer.alpha": {"low": 0.1, "high": 0.5}}


def written(folder, name="toy.yaml", **settings):
    path = folder / name
    path.write_text(yaml.safe_dump({"experiment": "toy"} | settings))
    return path


def budget(pipeline):
    return pipeline.training.epochs, pipeline.training.patience, pipeline.training.seeds


@pytest.mark.parametrize("size", BUDGETS)
def test_each_size_sets_the_budget_in_a_file_and_on_the_command_line(tmp_path, size):
    in_file = load(written(tmp_path, models={"BPR": {}}, size=size))
    on_command_line = load(written(tmp_path, models={"BPR": {}}), [f"size={size}"])
    assert budget(in_file) == budget(on_command_line) == BUDGETS[size]


def test_default_changes_nothing(tmp_path):
    plain = load(written(tmp_path, models={"BPR": {}}))
    sized = load(written(tmp_path, models={"BPR": {}}, size="default"))
    assert (
        sized
        == plain
        == Pipeline(experiment="toy", models={"BPR": {}}).model_copy(
            update={"targets": plain.targets}
        )
    )


def test_explicit_keys_win_over_a_preset_and_a_preset_over_a_size(tmp_path):
    own = {"models": {"BPR": {}}, "preset": "as-published", "size": "quick"}
    preset_over_size = load(written(tmp_path, **own))
    assert preset_over_size.training.epochs == 20
    assert preset_over_size.training.seeds == (1,)
    file_over_preset = load(written(tmp_path, training={"epochs": 7}, **own))
    assert file_over_preset.training.epochs == 7
    on_command_line = load(written(tmp_path, training={"epochs": 7}, **own), ["training.epochs=8"])
    assert on_command_line.training.epochs == 8


def test_a_file_keeps_its_models_and_a_size_names_some_where_it_has_none(tmp_path):
    assert list(load(written(tmp_path, models={"SLIMElastic": {}}, size="quick")).models) == [
        "SLIMElastic"
    ]
    assert list(load(written(tmp_path, size="quick")).models) == ["BPR", "EASE", "Pop"]
    assert len(load(written(tmp_path, size="thorough")).models) == 8
    with pytest.raises(BadInput, match=r"toy\.yaml: models is required"):
        load(written(tmp_path))


def test_a_result_is_keyed_by_what_a_size_sets_and_not_by_its_name(tmp_path):
    spelt_out = {"epochs": 5, "patience": 3, "seeds": [1]}
    quick = load(written(tmp_path, models={"BPR": {}}, size="quick"))
    same = load(written(tmp_path, models={"BPR": {}}, training=spelt_out))
    assert quick.digest() == same.digest()
    assert quick.training.budget().digest() == same.training.budget().digest()


def test_an_unknown_size_is_refused(tmp_path):
    message = r"toy\.yaml: size: there is no huge\. Choose one of default, quick, thorough"
    with pytest.raises(BadInput, match=message):
        load(written(tmp_path, models={"BPR": {}}, size="huge"))


@pytest.mark.parametrize("size", TRIALS)
def test_an_experiment_takes_trials_seeds_and_epochs_from_the_size(tmp_path, size):
    path = written(tmp_path, base={"models": {"BPR": {}}}, search={"space": SPACE})
    loaded = load_experiment(path, [f"size={size}"])
    assert loaded.config.search.trials == TRIALS[size]
    assert budget(loaded.points[0].pipeline) == BUDGETS[size]
    varied = loaded.points[0].varied("BPR", "transfer", {"transfer.alpha": 0.3})
    assert budget(varied) == BUDGETS[size]


def test_an_experiments_own_trials_and_seeds_win(tmp_path):
    base = {"models": {"BPR": {}}, "size": "quick"}
    search = {"trials": 9, "space": SPACE}
    loaded = load_experiment(written(tmp_path, base=base, seeds=[4, 5], search=search))
    assert loaded.config.search.trials == 9
    assert budget(loaded.points[0].pipeline) == (5, 3, (4, 5))


def test_quick_replaces_keys_of_an_experiment_that_says_which(tmp_path):
    quick = {"grid": {"split.seed": [7]}, "seeds": [1, 2], "arms": ["baseline"]}
    grid = {"split.seed": [5, 6, 7]}
    base = {"models": {"BPR": {}}, "training": {"epochs": 40}}
    path = written(tmp_path, base=base, grid=grid, seeds=[1], quick=quick)
    assert len(load_experiment(path).points) == 3
    (point,) = load_experiment(path, ["size=quick"]).points
    assert point.pipeline.split.seed == 7
    assert point.pipeline.training.arms == ("baseline",)
    assert budget(point.pipeline) == (40, 3, (1, 2))  # the file's epochs stay
    with pytest.raises(ValueError, match="quick: input should be a valid dictionary"):
        load_experiment(written(tmp_path, base=base, quick=[1]), ["size=quick"])
    with pytest.raises(ValueError, match="seed is not a known key"):
        load_experiment(written(tmp_path, base=base, quick={"seed": 1}), ["size=quick"])


def test_the_shipped_results_have_a_quick_form():
    path = PROJECT_ROOT / "configs/experiments/results.yaml"
    (point,) = load_experiment(path, ["size=quick"]).points
    assert len(load_experiment(path).points) == 10
    assert point.pipeline.training.seeds == (1, 2)
    searched = load_experiment(path.with_name("results-search.yaml")).points[0].pipeline
    references = {"iALS", "EASE"}  # searched by strong-search.yaml
    assert searched.models.keys() | references >= point.pipeline.models.keys()
    assert searched.split.seed not in {p.pipeline.split.seed for p in load_experiment(path).points}


def test_all_points_of_an_experiment_have_one_size():
    with pytest.raises(ValueError, match="size is the same for all points"):
        Experiment(experiment="toy", base={}, grid={"size": ["quick", "default"]})


@pytest.mark.parametrize("path", sorted((PROJECT_ROOT / "configs/datasets").glob("*.yaml")))
def test_shipped_data_sets_follow_the_size(path):
    assert budget(load(path, ["size=quick"])) == BUDGETS["quick"]


def test_the_shipped_example_follows_the_size():
    path = PROJECT_ROOT / "configs/ml-100k.yaml"
    assert [budget(load(path, [f"size={size}"])) for size in BUDGETS] == list(BUDGETS.values())
