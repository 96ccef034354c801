"""Hostile settings: whatever a file or `--set` holds, it is loaded or refused in one sentence."""

import random
import re
from pathlib import Path

import pytest
import yaml

from models.config import Experiment, Model, Pipeline, Section, parse_yaml
from models.errors import BadInput
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import MODELS
from models.recommenders.tap_probe import tapped_layer
from tasks.config.experiment_file import load_experiment
from tasks.config.pipeline_file import load
from tasks.config.prompt_file import parse_prompt
from tasks.config.yaml_settings import read_settings

BASE = {"experiment": "toy", "models": {"BPR": {}, "MultiVAE": {}}}
GRID = {"experiment": "grid", "base": BASE, "grid": {"transfer.alpha": [0.1, 0.2]}}
WORDS = """.nan -.inf 1e400 -1 -4 0 1 0.5 1e300 99999999999999999999 -2147483649 2147483648 true no
~ '' a [] {} [.nan] [1,[2,[3]]] {a:1} 2020-01-01 2020-13-01 ndcg@99999999999999 [-1] [a,a] [1 {a *b
../../etc/passwd s3:// file:///x http://[ %s%n ü 💥 cuda:99 utf-99 idna 1:30 '{{x}}' '[red]x'"""
VALUES = [
    *WORDS.split(),
    *("{a: {b: {c: 1}}}", '"\\e[2J"', '"\\ud800"', "!!python/name:os.system x", "!!timestamp foo"),
    *("!!set {a}", "&a [*a]", "{1: 2}", "{a: 1, a: 2}", "x" * 5000, "[" * 200, "9" * 4000),
    *("0x" + "f" * 5000, "{low: 1, high: .inf}", "{choices: [.nan, {}]}"),
]
RAW = re.compile(
    r"Traceback|<unicode string>|pydantic|validation error|object at 0x|NoneType'|\bErrno\b|"
    r"(Value|Type|Key|Attribute|Index|Overflow|Recursion)Error|line \d+, column|function-after|\n"
)


def keys(section: type[Section], above: str = "") -> list[str]:
    """Every dotted key of a section and of those in it."""
    found = []
    for name, field in section.model_fields.items():
        found.append(f"{above}{name}")
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, Section) and kind is not Model:
                found += keys(kind, f"{above}{name}.")
    return found


SETTINGS = [key for key in keys(Pipeline) if key != "models"]
PARAMETERS = [
    f"models.{model}.hyperparameters.{key}"
    for model in ("BPR", "MultiVAE")
    for key in hyperparameters(model, {})
]
OWN = [f"models.BPR.{key}" for key in (*keys(Model), "tap.name", "transfer.alpha", "transfer.x")]
ODD = ["", "a", ".", "models", "models.BPR", "models.X.tap", "models.BPR.", "a." * 400 + "a", "ü.x"]


def hostile(n: int, known: list[str], seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [
        [f"{draw.choice(known)}={draw.choice(VALUES)}" for _ in range(draw.choice((1, 1, 1, 2, 3)))]
        for _ in range(n)
    ]


def refused(call) -> str | None:
    """The sentence with which input was refused, None if it was taken."""
    try:
        call()
    except BadInput as error:
        sentence = str(error)
        assert not RAW.search(sentence), sentence
        assert len(sentence) < 3000, sentence[:3000]
        return sentence
    return None


def write(folder: Path, content: object) -> Path:
    file = folder / "toy.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_five_hundred_settings_are_taken_or_refused_in_a_sentence(tmp_path):
    known = [*SETTINGS, *PARAMETERS, *OWN, *ODD]
    file = write(tmp_path, BASE)
    taken = sum(refused(lambda o=o: load(file, o)) is None for o in hostile(350, known, seed=1))
    file = write(tmp_path, GRID)
    inner = [f"{place}.{key}" for place in ("grid", "overrides", "points.a") for key in SETTINGS]
    search = [f"search.space.transfer.alpha.{end}" for end in ("low", "high", "step", "choices")]
    known = [*keys(Experiment), *inner[::9], *search * 3, *SETTINGS[::5], *ODD]
    drawn = hostile(150, known, seed=2)
    taken += sum(refused(lambda o=o: load_experiment(file, o)) is None for o in drawn)
    assert 10 < taken < 250


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
FILES = {
    "experiment: a\nexperiment: b\nmodels: {BPR: {}}": "line 2: .*the key experiment stands twice",
    "models: {BPR: {}, BPR: {tap: {name: x}}}": "the key BPR stands twice",
    BOMB: "more than 40 levels or 100,000 values",
    CHAIN: "more than 40 levels",
    MERGED: "more than 40 levels or 100,000 values",
    "[" * 500: "more than 40 levels",
    "{a: " * 300 + "1" + "}" * 300: "more than 40 levels",
    "a: &a [*a]": "an alias stands within what it names",
    "a: &a {b: *a}": "an alias stands within",
    "a: *nope": "undefined alias",
    "x:\n  a: !!timestamp foo": "line 2: .*foo is not a valid timestamp",
    "a: 2020-13-45": "2020-13-45 is not a valid timestamp",
    "a: !!int foo": "is not a valid int",
    "a: !!float foo": "is not a valid float",
    "a: !!bool foo": "is not a valid bool",
    "a: !!binary é": "the tag !!binary is not allowed",
    "a: !!set {b}": "the tag !!set is not allowed",
    "a: !!omap [b: 1]": "the tag !!omap is not allowed",
    "a: !!python/object/apply:os.system [x]": "the tag !!python/object/apply:os.system",
    "a: !own 1": "the tag !own is not allowed",
    "1: x": "this key is not text; put it in quotes",
    "yes: x": "not text",
    "~: x": "not text",
    "2020-01-01: x": "not text",
    "[a]: x": "not text",
    "? {a: b}\n: c": "not text",
    "a: \x1b[2J": "control characters",
    'a: "\\e[2J"': "control characters",
    'a: "\\0"': "control characters",
    'a: "\\ud800"': "control characters",
    "a: \x00": "control characters",
    "a: \ufffe": "control characters",
    "a: [1": "not valid YAML",
    "a: b: c": "not valid YAML",
    "\ta: 1": "not valid YAML",
    'a: "b': "not valid YAML",
    'a: "\\q"': "not valid YAML",
    "a: 1\n---\nb: 2": "not valid YAML",
    "%YAML 9.9\n---\na: 1": "not valid YAML",
    "- a\nb: c": "not valid YAML",
    "<<: 3": "not valid YAML",
    "a: !!str {b: c}": "not valid YAML",
    f"a: {'9' * 5000}": "is not a valid int",
    f"a: 0x{'f' * 5000}": "is not a valid int",
    "": "must hold a mapping",
    "- a": "must hold a mapping",
    "text": "must hold a mapping",
    "~": "must hold a mapping",
    "2020-01-01": "must hold a mapping",
    "a: " + "x" * 2**20: "larger than 1 MB",
}


@pytest.mark.parametrize("number", range(len(FILES)))
def test_fifty_yaml_files_are_refused_in_a_sentence(tmp_path, number):
    text, message = [*FILES.items()][number]
    sentence = refused(lambda: read_settings(write(tmp_path, text)))
    assert sentence is not None
    assert re.search(message, sentence), sentence
    if message not in ("must hold a mapping", "larger than 1 MB") and text[0] != "%":
        fronted = f"---\n{text}\n---\n{{% block user %}}a{{% endblock %}}"
        assert "prompt mine" in (refused(lambda: parse_prompt(fronted, "mine")) or "")


def test_merges_aliases_and_lone_control_characters_stay():
    text = 'b: &b {x: 1}\nc: &c {<<: *b, x: 2}\nd: {<<: *c, y: "\\x01"}\ne: =\nf: 1e-3'
    found = parse_yaml(text, "a file")
    assert found == {"b": {"x": 1}, "c": {"x": 2}, "d": {"x": 2, "y": "\x01"}, "e": "=", "f": 0.001}


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "latin.yaml").write_bytes("a: ü".encode("latin-1"))
    assert "not UTF-8 at byte 3" in (refused(lambda: load(tmp_path / "latin.yaml")) or "")
    for name in ("none.yaml", ".", "x" * 300):
        assert refused(lambda name=name: load(tmp_path / name))
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert "does not exist" in (refused(lambda: load(tmp_path / "loop.yaml")) or "")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, BASE)
    monkeypatch.setattr(Path, "read_text", denied)
    assert "cannot be read: Permission denied" in (refused(lambda: load(file)) or "")


@pytest.mark.parametrize("model", MODELS)
def test_every_hyperparameter_refuses_what_is_no_such_number(model):
    nan, inf = float("nan"), float("inf")
    for key, default in hyperparameters(model, {}).items():
        for value in (nan, inf, -inf, -4, -0.5, "x" * 99, [nan], [-1], [True], {"a": 1}, [[1]]):
            if isinstance(default, str) and isinstance(value, str):
                continue
            sentence = refused(lambda key=key, value=value: hyperparameters(model, {key: value}))
            assert sentence, (key, value)
            assert sentence.startswith(f"models.{model}.hyperparameters.{key}"), sentence


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.BPR.hyperparameters.embedding_size=-4", "embedding_size: -4 is not from 1"),
        ("models.BPR.hyperparameters.embedding_size=0", "embedding_size: 0 is not from 1"),
        ("models.BPR.hyperparameters.embedding_size=8.0", "embedding_size: 8.0 is a float"),
        ("models.BPR.hyperparameters.embedding_size=3000000000", "embedding_size: a whole number"),
        ("models.BPR.hyperparameters.train_batch_size=0", "train_batch_size: 0 is not from 1"),
        ("models.BPR.hyperparameters.learning_rate=0", "learning_rate: 0 is not above 0"),
        ("models.BPR.hyperparameters.learning_rate=.nan", "learning_rate: a number must be finite"),
        ("models.BPR.hyperparameters.learner=adm", "learner: 'adm' .* Set one of adam, adamw"),
        ("models.BPR.hyperparameters.clip_grad_norm=5", "clip_grad_norm: write a mapping"),
        ("models.BPR.hyperparameters.train_neg_sample_args={dynamic: true}", "dynamic: True is"),
        ("models.BPR.hyperparameters.train_neg_sample_args={sample_num: 0}", "sample_num: 0 is"),
        (
            "models.MultiVAE.hyperparameters.dropout_prob=1",
            "dropout_prob: 1 is not from 0 to below",
        ),
        ("models.MultiVAE.hyperparameters.mlp_hidden_size=[8, -1]", "mlp_hidden_size: -1 is not"),
        ("models.NeuMF.hyperparameters.mf_pretrain_path=x.pth", "mf_pretrain_path: not supported"),
        ("models.BPRR={}", r"models\.BPRR: not a supported model"),
        ("models.BPR.transfer.alpha=.nan", r"models\.BPR\.transfer\.alpha: .*finite number"),
        ("models.BPR.transfer.alhpa=1", r"models\.BPR\.transfer\.alhpa is not .* mean alpha\?"),
        ("split.ratios=[.nan, .1, .2]", r"split\.ratios\.0: .*finite number"),
        ("split.ratios=[.inf, .1, .2]", r"split\.ratios\.0: .*finite number"),
        ("split.seed=-1", r"split\.seed: .*greater than or equal to 0"),
        ("training.seeds=[1, -2]", r"training\.seeds\.1: .*greater than or equal to 0"),
        ("training.seeds=[99999999999999999999]", r"training\.seeds: .*beyond 2,147,483,647"),
        ("training.epochs=1e400", r"training\.epochs: .*finite"),
        ("training.epochs=yes", r"training\.epochs: a number is needed, not true or false"),
        ("training.threads=100000", r"training\.threads: .*less than or equal to 1024"),
        ("training.valid_metric=ndcg@99999999999", r"training\.valid_metric: .*not METRIC@K"),
        ("nightly.tolerance=.nan", r"nightly\.tolerance: .*finite number"),
        (
            "profiles.llm.batch_poll_seconds=1e300",
            r"profiles\.llm\.batch_poll_seconds: .*less than",
        ),
        (f"experiment={'x' * 101}", "experiment: use up to 100 letters"),
        ("experiment=a/b", "experiment: use up to 100 letters"),
        ('experiment="a\\n"', "experiment: use up to 100 letters"),
        ("experiment=..", "experiment: use up to 100 letters"),
    ],
)
def test_numbers_and_names_are_refused_when_the_file_is_loaded(tmp_path, override, message):
    sentence = refused(lambda: load(write(tmp_path, BASE), [override]))
    assert sentence is not None
    assert re.search(message, sentence), sentence


def test_values_that_fit_each_alone_but_make_no_model_are_refused_before_any_work():
    with pytest.raises(BadInput, match=r"models\.SASRec\.hyperparameters: .* n_heads 3"):
        tapped_layer("SASRec", {"n_heads": 3, "hidden_size": 64})
    with pytest.raises(BadInput, match=r"models\.GRU4Rec\.hyperparameters: .* loss_type 'XE'"):
        tapped_layer("GRU4Rec", {"loss_type": "XE"})
