"""Hand-made trained models with known rankings, and a small experiment of them, evaluated."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from models.config import Job, Pipeline, Tap
from models.schemas import INTERACTIONS, ITEMS, LLM_CALLS, PROFILES, RANKINGS, Epoch, vectors
from tasks.dataset.outputs import Splits
from tasks.embeddings.outputs import Described, Embedded
from tasks.evaluation.evaluation_task import evaluation
from tasks.evaluation.inputs import Part, PointResult
from tasks.evaluation.outputs import Evaluated
from tasks.profiles.outputs import Profiled
from tasks.storage.artifacts import Handle, write_bytes, write_parquet
from tasks.training.outputs import Trained

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# u1 holds out two items, u2 one; u3 has no test item, u4 no ranking.
TEST = [("u1", "i1"), ("u1", "i2"), ("u2", "i3"), ("u4", "i1")]
VALID = [("u1", "i4"), ("u3", "i1")]
VALID_RANKINGS = {"u1": ["i4", "i3"], "u2": ["i1", "i2"], "u3": ["i2"]}
RANKED = {
    # Per arm and seed. recall@2 of u1, u2 is .5 1 / 0 1 for the baseline, 1 1 / 1 1 with transfer.
    ("baseline", 1): {"u1": ["i1", "i5", "i2"], "u2": ["i4", "i3"], "u3": ["i1"]},
    ("baseline", 2): {"u2": ["i3", "i4"], "u1": ["i5", "i3", "i1"], "u3": ["i1"]},
    ("transfer", 1): {"u1": ["i1", "i2"], "u2": ["i3", "i1"], "u3": ["i1"]},
    ("transfer", 2): {"u1": ["i2", "i1"], "u2": ["i4", "i3"], "u3": ["i1"]},
}


def pipeline(**changes) -> Pipeline:
    settings = {
        "experiment": "tiny",
        "models": {"BPR": {"hyperparameters": {"embedding_size": 64}}},
        "targets": {"reduction": "umap"},
        "transfer": {"alpha": 0.5},
        "training": {"epochs": 4, "valid_metric": "recall@2", "seeds": [1, 2]},
        "evaluation": {"metrics": ["recall", "mrr"], "k": [1, 2], "primary": "recall@2"},
    }
    return Pipeline.model_validate(settings | changes)


def splits() -> Splits:
    def part(pairs):
        users, items = zip(*pairs, strict=True)
        table = pa.table(
            [users, items, pa.nulls(len(users)), pa.nulls(len(users))], INTERACTIONS.names
        )
        return write_parquet("split", table.cast(INTERACTIONS))

    return Splits(train=part([("u1", "i9"), ("u2", "i9")]), valid=part(VALID), test=part(TEST))


def catalogue() -> Handle:
    """Nine items; i9 alone is in training, with both of its users."""
    rows = [{"item_id": f"i{number}"} for number in range(1, 10)]
    return write_parquet("items", pa.Table.from_pylist(rows, schema=ITEMS))


def trained(config: Pipeline, model: str, arm: str, seed: int, ranked=None) -> Trained:
    rows = [
        {"split": split, "user_id": user, "items": items, "scores": [1.0] * len(items)}
        for split, ranking in (
            ("valid", VALID_RANKINGS),
            ("test", ranked or RANKED[arm, seed]),
        )
        for user, items in ranking.items()
    ]
    job = Job.of(config, model, arm, seed, {"users": Tap(name="user_embedding")})
    table = pa.Table.from_pylist(rows, schema=RANKINGS)
    return Trained(
        job=job,
        rankings=write_parquet("training", table, config=job.identity()),
        weights=write_bytes("weights", ".safetensors", f"{model} {arm} {seed}".encode()),
        epochs=tuple(epochs(config, arm)),
        best_epoch=2,
        train_seconds=1.5 * seed,
        flow_run_id=None,
        started_at=BEGAN,
        finished_at=BEGAN + timedelta(seconds=2),
    )


def epochs(config: Pipeline, arm: str):
    total = config.training.epochs
    for number in range(total):
        transferring = arm != "baseline" and number < total // 2
        yield Epoch(
            phase="train" if arm == "baseline" else ("transfer" if transferring else "finetune"),
            epoch=number,
            model_loss=0.7 / (number + 1),
            transfer_loss=0.9 / (number + 1) if transferring else None,
            valid_score=0.3 - 0.02 * abs(number - 2),
            seconds=0.25,
        )


def all_trained(config: Pipeline) -> list[Trained]:
    return [
        trained(config, model, arm, seed)
        for model in config.models
        for arm in config.training.arms
        for seed in config.training.seeds
    ]


def profiled(source: str = "offline", **changes) -> Profiled:
    calls = [
        {
            "profile_key": key,
            "provider": source,
            "model": "tiny-llm",
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "cost_usd": 0.001,
            "cached": False,
            "latency_seconds": 0.2,
            "finished_at": BEGAN,
        }
        for key in ("k1", "k2")
    ]
    known = {
        "profiles": write_parquet("profiles", PROFILES.empty_table()),
        "calls": write_parquet("calls", pa.Table.from_pylist(calls, schema=LLM_CALLS)),
        "source": source,
        "llm_model": None if source == "offline" else "tiny-llm",
        "prompt_hash": "0123456789abcdef",
        "provenance": "train-only",
        "missing": 0,
        "answers_cached": 0,
        "answers_paid": 2,
        "cost_usd": 0.002,
    }
    return Profiled.model_validate(known | changes)


def described(source: str = "offline", **changes) -> list[Described]:
    of_users = Described(side="users", profiled=profiled(source, **changes), embedded=embedded())
    return [of_users]


def embedded() -> Embedded:
    return Embedded(
        embeddings=write_parquet("embeddings", vectors("embedding", 8).empty_table()),
        model="all-MiniLM-L6-v2",
        width=8,
        texts_cached=0,
        texts_embedded=2,
        warnings=("1 of 2 texts are longer than the model reads",),
    )


# A small experiment with a control and a reference.
TRAINING = {
    "epochs": 4,
    "valid_metric": "recall@2",
    "seeds": [1, 2],
    "arms": ["baseline", "transfer", "shuffled"],
}
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


def evaluate(experiment="tiny", data=None, trained=None, **changes) -> Evaluated:
    config = configured(experiment, **changes)
    made = trained or all_ranked(config)
    return evaluated_run(config, data or splits(), made, described(), catalogue())


def evaluate_grid(experiment, points, data=None) -> Evaluated:
    """Points by name, each with what it changes."""
    texts, items = described(), catalogue()
    parts = []
    for point, changes in points.items():
        config = configured(experiment, **changes)
        made = all_ranked(config)
        parts.append(part_of(config, data or splits(), made, texts, items, point))
    results = [PointResult(point=point, pool=point, overrides="{}", state="ok") for point in points]
    return evaluation.fn(experiment, parts, results)


def configured(experiment, **changes):
    models = {"BPR": {}, "EASE": {}}
    settings = {"experiment": experiment, "models": models, "training": TRAINING}
    return pipeline(**(settings | changes))


def all_ranked(config):
    return [
        trained(config, model, arm, seed, RANKED[like, seed])
        for (model, arm), like in RANKS_AS.items()
        for seed in (1, 2)
    ]
