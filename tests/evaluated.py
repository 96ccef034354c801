"""A small experiment with a control and a reference, evaluated into the test's database."""

import runs

from tasks.evaluation import evaluation
from tasks.result_handoffs import Evaluated

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
    models = {"BPR": {}, "EASE": {}}
    settings = {"experiment": experiment, "models": models, "training": TRAINING}
    config = runs.pipeline(**(settings | changes))
    made = trained or [
        runs.trained(config, model, arm, seed, runs.RANKED[like, seed])
        for (model, arm), like in RANKS_AS.items()
        for seed in (1, 2)
    ]
    inputs = [config, splits or runs.splits(), made, runs.described(), runs.catalogue()]
    return evaluation.fn(*inputs)
