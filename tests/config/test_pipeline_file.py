"""Configuration: overrides, pass-through hyper-parameters, and one sentence per mistake."""

import pytest
import yaml

from models.config import LLM, Embeddings, Job, Pipeline, Transfer
from models.errors import BadInput
from models.recommenders.recommender import hyperparameters
from models.recommenders.registry import MODELS
from tasks.config.pipeline_file import load
from tasks.config.prompt_file import prompt_of
from tasks.llm.endpoint import api_key
from tasks.storage.artifacts import PROJECT_ROOT
from tasks.training.tap_points import tap_points

MINIMAL = {"experiment": "toy", "models": {"BPR": {}}}
EXPERIMENTS = {"demo"}
SHIPPED = sorted(
    path for path in (PROJECT_ROOT / "configs").glob("*.yaml") if path.stem not in EXPERIMENTS
)


def write(folder, raw) -> object:
    path = folder / "toy.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    pipeline = load(path)
    assert tap_points(pipeline).keys() == pipeline.models.keys()


def test_overrides_go_over_the_file(tmp_path):
    pipeline = load(
        write(tmp_path, MINIMAL),
        [
            "training.epochs=5",
            "models.BPR.hyperparameters.learning_rate=1e-2",
            "training.seeds=[3, 4]",
            "transfer.scale=none",
        ],
    )
    assert pipeline.training.epochs == 5
    assert pipeline.models["BPR"].hyperparameters == {"learning_rate": 0.01}
    assert pipeline.training.seeds == (3, 4)
    assert pipeline.transfer.scale == "none"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=5", r"training\.epoch is not a known key, did you mean epochs\?"),
        ("trainig.epochs=5", r"trainig is not a known key, did you mean training\?"),
        ("models.BPR.hyperparams={a: 1}", r"models\.BPR\.hyperparams is not .*hyperparameters\?"),
        ("training.epochs=many", r"training\.epochs: input should be a valid integer.*'many'"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1"),
        ("transfer.alpha=1.5", r"transfer\.alpha: .*less than or equal to 1 \(got 1\.5\)"),
        ("transfer.alpha=-0.1", r"transfer\.alpha: .*greater than or equal to 0"),
        ("transfer.alignment=mape", r"transfer\.alignment: input should be 'rmse'"),
        ("split.strategy=sideways", r"split\.strategy: input should be 'random'"),
        ("split.ratios=[0.5, 0.1, 0.1]", r"split\.ratios: three shares .* add up to 1"),
        ("training.seeds=[1, 1]", r"training\.seeds: each value may stand once"),
        ("training.valid_metric=ndcg", r"training\.valid_metric: 'ndcg' is not METRIC@K"),
        ("evaluation.primary=ndcg@7", r"evaluation\.primary is ndcg@7, but evaluation\.metrics"),
        ("models.BPR.transfer.alpha=2", r"alpha"),
        ("experiment=a/b", r"experiment: use up to 100 letters"),
        ("nonsense", r"--set nonsense: this is no key with a value\. Write dotted\.key=value"),
        ("experiment.name=x", r"--set experiment\.name=x: experiment is a value"),
    ],
)
def test_every_mistake_names_its_key(tmp_path, override, message):
    with pytest.raises(BadInput, match=message):
        load(write(tmp_path, MINIMAL), [override])


def test_files_that_are_not_configurations(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="not valid YAML"):
        load(write(tmp_path, "a: [1"))
    with pytest.raises(BadInput, match="must hold a mapping"):
        load(write(tmp_path, "- 1"))
    with pytest.raises(BadInput, match="experiment is required; models is required"):
        load(write(tmp_path, "{}"))


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("BPRR", {}, r"models\.BPRR: not a supported model\. Choose one of BPR, NeuMF"),
        ("BPR", {"learnin_rate": 0.1}, "learnin_rate is not .* did you mean learning_rate"),
        ("BPR", {"embedding_size": "wide"}, "'wide' is a str, RecBole expects a int such as 64"),
        ("NeuMF", {"mlp_hidden_size": 64}, "64 is a int, RecBole expects a list"),
        ("BPR", {"epochs": 3}, r"set training\.epochs instead"),
        ("NeuMF", {"mf_train": 1}, "1 is a int, RecBole expects a bool"),
    ],
)
def test_hyperparameters_are_checked_by_recboles_names(model, given, message):
    with pytest.raises(BadInput, match=message):
        hyperparameters(model, given)


def test_hyperparameters_pass_through():
    settings = hyperparameters("SimpleX", {"train_neg_sample_args": {"sample_num": 4}})
    assert settings["train_neg_sample_args"]["sample_num"] == 4
    assert settings["train_neg_sample_args"]["distribution"] == "uniform"
    assert settings["reg_weight"] == 1e-05


def test_a_misplaced_tap_is_found_before_any_work(tmp_path):
    pipeline = load(write(tmp_path, MINIMAL), ["models.BPR.tap.name=user_tower"])
    with pytest.raises(BadInput, match="BPR has no module user_tower"):
        tap_points(pipeline)


def test_a_table_to_start_from_texts_is_asked_for_before_any_work(tmp_path):
    init = ["models.LightGCN={}", "transfer.alignment=init"]
    with pytest.raises(BadInput, match=r"Set models\.LightGCN\.tap to an embedding"):
        tap_points(load(write(tmp_path, MINIMAL), init))
    tapped = [*init, "models.LightGCN.tap.name=user_embedding"]
    assert tap_points(load(write(tmp_path, MINIMAL), tapped))["LightGCN"]["users"].width


def test_widths_follow_the_model(tmp_path):
    raw = MINIMAL | {
        "models": {
            "BPR": {"hyperparameters": {"embedding_size": 24}},
            "MultiVAE": {"hyperparameters": {"latent_dimension": 32}},
        }
    }
    found = tap_points(load(write(tmp_path, raw)))
    widths = {name: sides["users"].width for name, sides in found.items()}
    assert widths == {"BPR": 24, "MultiVAE": 16}


def test_how_the_work_is_done_is_not_part_of_what_is_done():
    def digest(**training):
        return Pipeline.model_validate(MINIMAL | {"training": training}).digest()

    assert digest(workers=1, threads=2) == digest(workers=8)
    assert digest(epochs=3) != digest(epochs=4)
    fast = Pipeline.model_validate(MINIMAL | {"profiles": {"llm": {"concurrency": 64}}})
    assert fast.digest() == digest()


def test_a_baseline_job_knows_nothing_of_transfer():
    pipeline = Pipeline.model_validate(MINIMAL)
    changed = pipeline.model_copy(update={"transfer": Transfer(alpha=0.9)})
    jobs = [
        Job.of(p, "BPR", "baseline", 1, {"users": MODELS["BPR"].tap}) for p in (pipeline, changed)
    ]
    assert jobs[0].digest() == jobs[1].digest()
    jobs = [
        Job.of(p, "BPR", "transfer", 1, {"users": MODELS["BPR"].tap}) for p in (pipeline, changed)
    ]
    assert jobs[0].digest() != jobs[1].digest()


def test_prompts_are_found_by_name_or_path(tmp_path):
    def pipeline(prompt):
        profiles = {"provider": "openai", "prompt": prompt}
        return Pipeline.model_validate(MINIMAL | {"profiles": profiles})

    mine = tmp_path / "mine.j2"
    mine.write_text("{% block user %}Hello{% endblock %}")
    assert prompt_of(pipeline(str(mine))).text == mine.read_text()
    assert "history" in prompt_of(pipeline("user-movies")).text
    with pytest.raises(BadInput, match=r"no prompts/absent\.j2\. Name .* prompts/: .*user-movies"):
        prompt_of(pipeline("absent"))
    assert prompt_of(Pipeline.model_validate(MINIMAL)).text == ""  # offline profiles use none


@pytest.mark.parametrize("section", [LLM, Embeddings])
def test_a_key_is_checked_alike_wherever_it_is_used(section, monkeypatch):
    config = section(api_key_env="LLMKT_TEST_KEY")
    name = "profiles.llm" if section is LLM else "embeddings"
    monkeypatch.setenv("LLMKT_TEST_KEY", " sk-fine\n")
    assert api_key(config) == "sk-fine"
    monkeypatch.setenv("LLMKT_TEST_KEY", "  ")
    with pytest.raises(BadInput, match=rf"{name}: .*LLMKT_TEST_KEY.*{name}\.api_key_secret"):
        api_key(config)
    monkeypatch.setenv("LLMKT_TEST_KEY", "sk-…secret")
    with pytest.raises(BadInput, match=f"{name}: .*LLMKT_TEST_KEY holds") as error:
        api_key(config)
    assert "secret" not in str(error.value)
