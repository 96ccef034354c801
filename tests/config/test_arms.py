"""The table of arms decides everything that depends on an arm."""

import ast
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from flows.steps.knowledge import KnowledgeSteps, sides_of
from models.config import ARMS, BASELINE, TRANSFER, Arm, Pipeline, Search, Tap, Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.experiments.search import space_of
from models.report.verdict import main_arm
from models.schemas import EMBEDDING, INTERACTIONS, ITEMS, TARGET
from tasks.dataset.outputs import Interactions, Splits
from tasks.embeddings.outputs import Described, Embedded
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.training.tap_points import tap_points

PROJECT = Path(__file__).resolve().parents[2]
SAME_WORD = {
    ("models/config/transfer.py", TRANSFER): "a phase of the training",
    ("models/training/training_loop.py", TRANSFER): "a phase of the training",
    ("models/experiments/search.py", TRANSFER): "a section of the configuration",
    ("models/experiments/search.py", "kar"): "a section of the configuration",
    ("models/recommenders/search_spaces.py", "noise"): "a hyper-parameter of XSimGCL",
    ("tasks/results/sql/schema.sql", BASELINE): "a view and a column's default take no parameter",
}
"""Files that use the name of an arm for something else, or cannot take it from the table."""
TAP = Tap(name="user_embedding")


def pipeline(*arms: str, **settings: object) -> Pipeline:
    return Pipeline.model_validate(
        {
            "experiment": "e",
            "models": {"BPR": {}, "DeepFM": {}, "EASE": {}},
            "training": {"arms": arms, "seeds": [1]},
            **settings,
        }
    )


def literals(path: Path) -> set[str]:
    """The strings of a source file, docstrings and longer texts left out."""
    text = path.read_text()
    if path.suffix != ".py":
        return set(re.findall(r"""(?<=['"])[a-z-]+(?=['"])""", text))
    nodes = ast.walk(ast.parse(text))
    return {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


def test_no_arm_is_named_outside_the_table():
    found = {
        (path.relative_to(PROJECT).as_posix(), name)
        for room in ("flows", "tasks", "models")
        for path in (PROJECT / room).rglob("*")
        if path.suffix in (".py", ".sql", ".j2", ".js", ".yaml")
        for name in literals(path) & ARMS.keys()
    }
    table = {("models/config/arms.py", name) for name in ARMS}
    assert found - table == SAME_WORD.keys()


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_what_a_training_takes_follows_from_the_row(arm):
    jobs = pipeline(arm.name).jobs({"BPR": {"users": TAP}, "DeepFM": {"users": TAP}, "EASE": {}})
    models = {
        "nothing": ["BPR", "DeepFM", "EASE"],
        "targets": ["BPR", "DeepFM"],
        "features": ["DeepFM"],
        "examples": ["DeepFM"],
    }
    assert [job.model for job in jobs] == models[arm.takes]
    for job in jobs:
        assert (job.transfer is not None, bool(job.taps)) == (arm.takes == "targets",) * 2
        assert (job.kar is not None) == arm.takes_whole == (arm.takes in ("features", "examples"))
    both = ("users", "items")
    sides = {"nothing": (), "targets": ("users",), "features": both, "examples": both}
    assert sides_of(pipeline(arm.name), {"BPR": {"users": None}}) == sides[arm.takes]


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS)
def test_every_line_has_its_own_look(arm):
    looks = [(other.colour, other.dash) for other in ARMS.values()]
    assert looks.count((arm.colour, arm.dash)) == 1
    assert arm.is_control == (arm.dash != "solid")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"training": {"arms": ["nonsense"]}},
            "input should be 'baseline', 'transfer', 'kar', 'shuffled'",
        ),
        ({"nightly": {"arm": "shuffled"}}, "Input should be 'baseline' or 'transfer'$"),
        ({"nightly": {"arm": "kar"}}, "Input should be 'baseline' or 'transfer'$"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_with_those_that_can(settings, message):
    with pytest.raises(ValidationError) as refused:
        pipeline(BASELINE, **settings)
    assert re.search(message, refused.value.errors()[0]["msg"])


class Here:
    """Runs stages at once, without Prefect."""

    def run(self, stage, *inputs, side=None):  # noqa: ARG002 - as `Stages.run`
        return stage.fn(*inputs)


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_a_control_is_one_row(monkeypatch):
    def all_alike(inputs):
        return np.ones_like(inputs.targets)

    row = Arm("all-alike", "targets", "#123456", "dot", all_alike, knows_profiles=False)
    monkeypatch.setitem(ARMS, row.name, row)
    asked = pipeline(BASELINE, TRANSFER)
    arms = {"arms": (BASELINE, TRANSFER, row.name)}
    asked = asked.model_copy(update={"training": asked.training.model_copy(update=arms)})
    assert [arm.suits("BPR", {"users": TAP}) for arm in asked.training.arm_rows] == [True] * 3

    table = to_table(pa.array(["a", "b", "c"]), EMBEDDING, np.eye(3, 4, dtype="f4"))
    embedded = Embedded(
        embeddings=write_parquet("embeddings", table),
        model="m",
        width=4,
        texts_cached=0,
        texts_embedded=0,
    )
    train = write_parquet("train", INTERACTIONS.empty_table())
    items = write_parquet("items", ITEMS.empty_table())
    data, splits = (
        Interactions.model_construct(items=items),
        Splits.model_construct(train=train),
    )
    made = KnowledgeSteps(asked, data, splits, Here()).target(
        {"users": {"BPR": (Targets(reduction="none"), None)}},
        [Described(side="users", profiled=None, embedded=embedded)],
        None,
    )
    assert made.keys() == {("BPR", TRANSFER, 1), ("BPR", row.name, 1)}
    targets = read_parquet(made["BPR", row.name, 1]["users"].targets)[TARGET]
    np.testing.assert_array_equal(to_matrix(targets), np.ones((3, 4)))

    space = Search.model_validate({"space": {"transfer.alpha": {"low": 0.1, "high": 0.9}}})
    assert space_of(space, "BPR", row.name)
    assert not space_of(space, "BPR", BASELINE)
    assert main_arm([{"arm": row.name, "against": BASELINE}]) == row.name
    both = [{"arm": name, "against": BASELINE} for name in (row.name, TRANSFER)]
    assert main_arm(both) == TRANSFER


def test_a_model_may_have_some_of_the_arms_and_seeds():
    models = {
        "BPR": {"seeds": [2, 3], "arms": ["baseline", "transfer"]},
        "EASE": {"arms": [BASELINE]},
    }
    training = {"arms": ["baseline", "transfer", "shuffled"], "seeds": [1, 2, 3]}
    some = Pipeline.model_validate({"experiment": "e", "models": models, "training": training})
    jobs = some.jobs({"BPR": {"users": TAP}, "EASE": {}})
    named = [(job.model, job.arm, job.seed) for job in jobs]
    assert named == [
        ("BPR", "baseline", 2),
        ("BPR", "baseline", 3),
        ("BPR", "transfer", 2),
        ("BPR", "transfer", 3),
        *(("EASE", "baseline", seed) for seed in (1, 2, 3)),
    ]
    assert tap_points(some)["EASE"] == {}
    for key, value in (("seeds", [4]), ("arms", ["noise"])):
        models["BPR"] = {key: value}
        with pytest.raises(ValidationError, match=f"models.BPR.{key}: none is in training.{key}"):
            Pipeline.model_validate({"experiment": "e", "models": models, "training": training})
