"""A small experiment with a control and a reference, evaluated into the test's database."""

from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.inputs import Part, PointResult
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


def evaluated_run(config, splits, trained, described, items) -> Evaluated:
    """Evaluate a run without Prefect."""
    part = part_of(config, splits, trained, described, items)
    return evaluation.fn(config.experiment, [part])


def part_of(config, splits, trained, described, items, point=None) -> Part:
    return Part(
        point=point,
        pipeline=config,
        splits=splits,
        described=tuple(described),
        items=items,
        trained=tuple(trained),
    )


def evaluate(experiment="tiny", splits=None, trained=None, **changes) -> Evaluated:
    config = configured(experiment, **changes)
    made = trained or all_trained(config)
    return evaluated_run(
        config, splits or toy_runs.splits(), made, toy_runs.described(), toy_runs.catalogue()
    )


def evaluate_grid(experiment, points, splits=None) -> Evaluated:
    """Points by name, each with what it changes."""
    described, items = toy_runs.described(), toy_runs.catalogue()
    parts = []
    for point, changes in points.items():
        config = configured(experiment, **changes)
        data = splits or toy_runs.splits()
        parts.append(part_of(config, data, all_trained(config), described, items, point))
    results = [PointResult(point=point, overrides="{}", state="ok") for point in points]
    return evaluation.fn(experiment, parts, results)


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
