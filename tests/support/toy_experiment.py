"""A small experiment with a control and a reference, evaluated into the test's database."""

from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.experiment_outputs import ExperimentEvaluated, Outcome, Part
from tasks.evaluation.grid_evaluation_task import grid_evaluation
from tasks.evaluation.outputs import Evaluated
from tests.support import toy_runs

ARMS = ("baseline", "transfer", "shuffled")
TRAINING = {"epochs": 4, "valid_metric": "recall@2", "seeds": [1, 2], "arms": ARMS}
# The control ranks as the baseline does, EASE as transfer does.
RANKS_AS = {
    ("BPR", "baseline"): "baseline",
    ("BPR", "transfer"): "transfer",
    ("BPR", "shuffled"): "baseline",
    ("EASE", "baseline"): "transfer",
}


def evaluate(experiment="tiny", splits=None, trained=None, **changes) -> Evaluated:
    config = configured(experiment, **changes)
    made = trained or all_trained(config)
    inputs = [config, splits or toy_runs.splits(), made, toy_runs.described(), toy_runs.catalogue()]
    return evaluation.fn(*inputs)


def evaluate_grid(experiment, points, splits=None) -> ExperimentEvaluated:
    """Points by name, each with what it changes."""
    described, items = toy_runs.described(), toy_runs.catalogue()
    parts = []
    for point, changes in points.items():
        config = configured(experiment, **changes)
        parts.append(
            Part(
                point=point,
                pipeline=config,
                splits=splits or toy_runs.splits(),
                described=described,
                items=items,
                trained=tuple(all_trained(config)),
                search_trials=0,
            )
        )
    outcomes = [Outcome(point=point, overrides="{}", state="ok", reason=None) for point in points]
    return grid_evaluation.fn(experiment, parts, outcomes, [])


def configured(experiment, **changes):
    models = {"BPR": {}, "EASE": {}}
    settings = {"experiment": experiment, "models": models, "training": TRAINING}
    return toy_runs.pipeline(**(settings | changes))


def all_trained(config):
    return [
        toy_runs.trained(config, model, arm, seed, toy_runs.RANKED[like, seed])
        for (model, arm), like in RANKS_AS.items()
        for seed in (1, 2)
    ]
