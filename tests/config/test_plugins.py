"""Plug-ins by import path: found, checked on random input, and part of every cache key."""

import os
import sys

import numpy as np
import pytest

from models.config import ALIGNMENTS, ARMS, RANKING_METRICS, Evaluation, Search, Transfer
from models.config.plugins import digests, load, require_same
from models.config.section import Section
from models.errors import BadInput
from models.experiments.grid import parts_of, set_at, value_at
from models.recommenders.registry import entry
from tasks.config.pipeline_file import validated
from tasks.execution.cache_key import cache_key
from tasks.storage.artifacts import PROJECT_ROOT

LOSSES = "my_pkg_17/losses.py"
EXAMPLES = PROJECT_ROOT / "examples"


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path as a plug-in's."""

    def written(text: str, name: str = "mine.py") -> str:
        file = tmp_path / name
        before = file.stat().st_mtime_ns if file.exists() else 0
        file.write_text(text)
        os.utime(file, ns=(before + 10**9, before + 10**9))
        return str(file)

    yield written
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def test_the_examples_are_rows_of_their_tables():
    huber = ALIGNMENTS[f"{EXAMPLES}/huber_alignment.py:HUBER"]
    assert huber.scaled
    metric = RANKING_METRICS[f"{EXAMPLES}/first_hit.py:first_hit"]
    hits = np.array([[1, 0], [0, 1], [0, 0]], bool)
    np.testing.assert_array_equal(metric.score(hits, np.array([1, 1, 1])), [1.0, 0.5, 0.0])
    assert ARMS[f"{EXAMPLES}/own_parts.py:popularity"].is_control
    space = Search(space=f"{EXAMPLES}/own_parts.py:SPACE").space
    assert space["transfer.alpha"].choices == [0.0, 0.1, 0.3]
    evaluation = Evaluation(
        metrics=("ndcg", f"{EXAMPLES}/first_hit.py:first_hit"),
        primary=f"{EXAMPLES}/first_hit.py:first_hit@10",
    )
    assert (evaluation.metrics[1], 5) in evaluation.columns()


def test_a_package_is_found_from_the_working_directory(write, tmp_path, monkeypatch):
    (tmp_path / "my_pkg_17").mkdir()
    write("", "my_pkg_17/__init__.py")
    write(f"from .deep import scale\n{LOSS}scale * (layer - target).abs().mean()\n", LOSSES)
    write("scale = 2.0\n", "my_pkg_17/deep.py")
    monkeypatch.chdir(tmp_path)
    assert Transfer(alignment="my_pkg_17.losses:f").method.loss
    before = digests()["my_pkg_17.losses:f"]
    write("scale = 3.0\n", "my_pkg_17/deep.py")
    assert digests()["my_pkg_17.losses:f"] != before, "an imported file beside it counts"


def test_a_changed_file_is_read_again_and_changes_the_key(write):
    path = write(
        "import helper_17\ndef m(hits, n_relevant):\n    return helper_17.one(hits)\n", "m.py"
    )
    write("def one(hits):\n    return hits.any(axis=1) * 1.0\n", "helper_17.py")
    inputs = {"config": Evaluation(metrics=(f"{path}:m",), primary=f"{path}:m@10")}
    hits = np.ones((1, 1), bool)
    assert RANKING_METRICS[f"{path}:m"].score(hits, np.ones(1)) == 1.0
    keys = [cache_key("stage", 1, inputs), cache_key("stage", 1, inputs)]
    write("def one(hits):\n    return hits.any(axis=1) * 0.5\n", "helper_17.py")
    keys.append(cache_key("stage", 1, inputs))
    assert RANKING_METRICS[f"{path}:m"].score(hits, np.ones(1)) == 0.5
    assert keys[0] == keys[1] != keys[2]
    assert cache_key("stage", 1, {"x": 1}) == cache_key("stage", 1, {"x": 1})


def test_a_worker_with_another_source_is_refused(write):
    path = write("def f(): pass\n")
    load(f"{path}:f")
    require_same(digests(f"{path}:f"), "there")
    with pytest.raises(BadInput, match=r"mine.py:f: its source on there is another"):
        require_same({f"{path}:f": "0" * 16}, "there")


LOSS = "def f(layer, target, run):\n    return "
ARM = "from models.config import Arm\nf = Arm"
MODEL = "import torch\nfrom torch import nn\nclass M(nn.Module):\n"


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        (ALIGNMENTS, "x = 1\n", "mine.py has no f. Choose one of x"),
        (
            ALIGNMENTS,
            "f = lambda layer: layer\n",
            r"be called as loss\(layer, target, run\)",
        ),
        (ALIGNMENTS, LOSS + "layer - target\n", r"return a scalar tensor .* not shape \(8, 6\)"),
        (ALIGNMENTS, LOSS + "(layer * float('nan')).sum()\n", "of random rows is not finite"),
        (ALIGNMENTS, LOSS + "layer @ 'x'\n", "failed with TypeError"),
        (ALIGNMENTS, "def f(:\n", "importing it failed with SyntaxError"),
        (ALIGNMENTS, "import no_such_thing\n", "No module named 'no_such_thing'"),
        (ALIGNMENTS, "raise SystemExit(3)\n", "importing it failed with SystemExit"),
        (RANKING_METRICS, "f = lambda hits, n: hits\n", "number per user from 0.0 to 1.0, not"),
        (RANKING_METRICS, "f = lambda hits, n: n * 2.0\n", "a number per user from 0.0 to 1.0"),
        (RANKING_METRICS, "f = lambda hits, n: n * float('nan')\n", "a number per user"),
        (ARMS, "f = 3\n", r"cannot be called as make_targets\(inputs\)"),
        (ARMS, f"{ARM}('x', 'nothing', 'red')\n", "own arm is a control"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(write, table, text, message):
    with pytest.raises(BadInput, match=message):
        table[f"{write(text)}:f"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/file.py:f", "no file no/file.py in"),
        ("no_such_package.here:f", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("__main__:f", "Write the code to a file"),
        ("sys:exit", "another module's name"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(name, message):
    with pytest.raises(BadInput, match=message):
        load(name)
    assert not issubclass(type(load), Section)


def test_a_file_whose_name_is_taken_is_refused(write):
    with pytest.raises(BadInput, match="numpy is another module's name"):
        load(f"{write('f = 1', 'numpy.py')}:f")


def test_dotted_keys_keep_a_models_import_path_whole():
    key = "models.my_pkg.models:Mine.hyperparameters.width"
    assert parts_of(key) == ["models", "my_pkg.models:Mine", "hyperparameters", "width"]
    settings: dict = {}
    set_at(settings, "models.a/b.py:Mine.tap.name", "x")
    assert settings == {"models": {"a/b.py:Mine": {"tap": {"name": "x"}}}}
    assert value_at(settings, "models.a/b.py:Mine.tap.name") == "x"
    assert parts_of("models.BPR.tap") == ["models", "BPR", "tap"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    pass\n", r"M has no method loss\(self, batch\)"),
        ("    def loss(self, batch): pass\n", r"M has no method scores\(self, users\)"),
        (
            "    def loss(self): pass\n    def scores(self, users): pass\n",
            r"cannot be called as loss\(self, batch\)",
        ),
        (
            "    loader = 'x'\n    def __init__(self, data): super().__init__()\n"
            "    def loss(self, batch): pass\n    def scores(self, users): pass\n",
            "loader 'x' is unknown. Set one of pairwise, pointwise, users",
        ),
        (
            "    taps = {'user': 'x'}\n    def __init__(self, data): super().__init__()\n"
            "    def loss(self, batch): pass\n    def scores(self, users): pass\n",
            "reading M.taps, by users and items, failed with KeyError: 'user'",
        ),
    ],
)  # fmt: skip
def test_a_class_that_is_no_model_is_refused(write, body, message):
    with pytest.raises(BadInput, match=message):
        entry(f"{write(MODEL + body)}:M")
    with pytest.raises(BadInput, match=r"is no model. Name a class"):
        entry(f"{write('M = 3')}:M")


def test_a_pipeline_with_own_hyperparameters_is_checked_like_any_other():
    name = f"{EXAMPLES}/matrix_factorization.py:MatrixFactorization"
    own = {"loader": "pairwise", "hyperparameters": {"width": 8, "learning_rate": 0.01}}
    pipeline = validated({"experiment": "x", "models": {name: own}}, "here")
    assert pipeline.models[name].given == {"width": 8, "learning_rate": 0.01, "loader": "pairwise"}
    for key, value, message in (
        ("wdth", 8, "is not a hyper-parameter.*did you mean width"),
        ("width", "wide", "is a str, your class expects a int"),
        ("width", 0, "is not from 1"),
    ):
        wrong = {"experiment": "x", "models": {name: {"hyperparameters": {key: value}}}}
        with pytest.raises(BadInput, match=message):
            validated(wrong, "here")
    with pytest.raises(BadInput, match="loader is not a hyper-parameter of BPR"):
        validated({"experiment": "x", "models": {"BPR": {"loader": "users"}}}, "here")
