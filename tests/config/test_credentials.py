"""No setting holds a credential, and no message repeats one."""

import base64

import pytest
import yaml

from models.credentials import credential_in, masked
from models.errors import BadInput
from tasks.config.experiment_file import load_experiment
from tasks.config.pipeline_file import load

PASSWORD = "hunter2"
KEY = "sk-proj-7f3a91c2e5d84b60QWER"
KEYS = [
    "profiles.llm.base_url",
    "item_profiles.llm.base_url",
    "embeddings.base_url",
    "item_embeddings.base_url",
    "dataset.path",
    "dataset.interactions",
    "dataset.items",
    "dataset.users",
    "dask.address",
    "profiles.path",
    "profiles.prompt",
    "profiles.llm.prices",
    "embeddings.path",
    "embeddings.model",
    "nightly.incoming",
    "models.BPR.hyperparameters.some",
    "profiles.fields.taste",
    "no.such.key",
]
CREDENTIALS = [
    "https://me:hunter2@host/v1",
    "https://hunter2@host/v1",
    "HTTPS://me:a@hunter2@host/v1",
    "https://me:a/hunter2@host/v1",
    "https://me:hunter2?x#y@host/v1",
    "https://me%3Ahunter2%40host/v1",
    "https:/me:hunter2@host/v1",
    "//me:hunter2@host/v1",
    "me:hunter2@host:8080/v1",
    "simplecache::https://me:hunter2@host/x.csv",
    "zip://a.csv::https://me:hunter2@host/x.zip",
    "s3://me:hunter2@bucket/x.csv",
    "abfs://container:hunter2@account/x.csv",
    "tcp://me:hunter2@10.0.0.1:8786",
    "https://host/x.csv?X-Amz-Signature=hunter2",
    "https://host/x.csv?X%2DAmz%2DSecurity%2DToken=hunter2",
    "https://host/x.csv?sv=2024&sig=hunter2",
    "https://host/x.csv?Key-Pair-Id=1&Policy=hunter2",
    "https://host/v1?api-key=hunter2",
    "https://host/v1;token=hunter2",
    "https://host/v1#access_token=hunter2",
    "https://host/v1?subscription-key=hunter2",
    "https://host/x?u=0a1b2c3d4e5f6071hunter2",
    f"https://host/{KEY}/v1",
    "Bearer hunter2hunter2",
]
HARMLESS = [
    "https://host/v1?api-version=2024-02-01",
    "https://host:8080/v1/@me/x.csv",
    "http://[::1]:8080/v1",
    "abfs://container@account.dfs.core.windows.net/x",
    "https://drive.google.com/uc?export=download&id=0B6eKvaijfFUDQUUwd21jQlRqcUk",
    "https://host/x.zip?download=1",
    "C:\\data\\a@b.csv",
    "tcp://10.0.0.5:8786",
    "Name what a reader of a@b.example likes: yes; key=1",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "meta-llama/Llama-3.1-8B-Instruct",
]


@pytest.fixture
def pipeline(tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("experiment: e\nmodels: {BPR: {}}\n")
    return file


def refusal(call, *inputs):
    with pytest.raises(BadInput) as refused:
        call(*inputs)
    text = str(refused.value)
    assert PASSWORD not in text
    assert KEY[3:] not in text
    return text


@pytest.mark.parametrize("key", KEYS)
def test_a_credential_is_refused_under_every_key(pipeline, key):
    text = refusal(load, pipeline, [f"{key}=https://me:{PASSWORD}@host/v1"])
    assert f"{key} holds a user name or password" in text
    assert "Take it out" in text


@pytest.mark.parametrize("url", CREDENTIALS)
def test_every_form_of_credential_is_refused(pipeline, url):
    override = yaml.safe_dump({"profiles": {"llm": {"base_url": url}}})
    pipeline.write_text(pipeline.read_text() + override)
    assert "profiles.llm.base_url holds" in refusal(load, pipeline)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_public_is_not_refused(text):
    assert credential_in(text) is None
    assert masked(text) == text.replace("key=1", "key=…")


def test_a_grid_and_a_prompt_hold_no_credential_either(pipeline, tmp_path):
    url = f"https://me:{PASSWORD}@host/v1"
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"base: {pipeline}\ngrid: {{profiles.llm.base_url: ['{url}']}}\n")
    assert "profiles.llm.base_url holds" in refusal(load_experiment, grid)
    prompt = tmp_path / "p.j2"
    prompt.write_text(f"---\nmodel: '{url}'\n---\n{{{{ history }}}}\n")
    refusal(load, pipeline, ["profiles.provider=openai", f"profiles.prompt={prompt}"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("profiles.llm.api_key_env", KEY),
        ("profiles.llm.api_key_env", PASSWORD),
        ("embeddings.api_key_env", "AKIAIOSFODNN7EXAMPLE"),
        ("embeddings.api_key_env", "A1B2C3D4E5F60718293A4B5C"),
        ("profiles.llm.api_key_secret", "sk-7f3a91c2e5d84b60aaaa"),
        ("profiles.llm.api_key_secret", f"{PASSWORD}!"),
    ],
)
def test_the_name_of_a_key_is_no_key(pipeline, key, value):
    text = refusal(load, pipeline, [f"{key}={value}"])
    assert value not in text


@pytest.mark.parametrize(
    "override",
    [
        f"profiles.llm=https://me:{PASSWORD}@host",
        f"profiles.llm={{password: {PASSWORD}, base_url: 1}}",
        f"profiles.llm.concurrency={{token: {PASSWORD}}}",
        f"profiles.llm.api_key={PASSWORD}",
        f"profiles.llm.base_url=[{PASSWORD}]",
        f"dask.address={PASSWORD}",
        f"profiles.llm.{KEY}=1",
        f"https://me:{PASSWORD}@host",
        f"experiment.api_key={PASSWORD}",
        f"models=[{PASSWORD}]",
    ],
)
def test_errors_do_not_print_what_could_be_secret(pipeline, override):
    refusal(load, pipeline, [override])


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Incorrect API key provided: {KEY[:8]}************{KEY[-4:]}.",
        f"key {KEY[:12]}... is revoked",
        f"key …{KEY[-4:]} is revoked",
        f"x{KEY[6:18]}y",
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"me:{KEY}".encode()).decode(),
        base64.b64encode(f"{KEY}:".encode()).decode(),
        KEY.replace("-", "%2D"),
        f'{{"authorization": "Bearer {KEY}"}}',
    ],
)
def test_a_known_key_is_masked_in_every_form(text):
    shown = masked(f"before {text} after", KEY)
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    for n in range(len(KEY) - 7):
        assert KEY[n : n + 8] not in shown
    assert KEY[-4:] not in shown
    for shift in range(3):
        assert base64.b64encode(bytes(shift) + KEY.encode()).decode()[4:-6] not in shown


def test_masks_leave_words_alone():
    assert masked("answered 401: unknown model. Try again...", "x") == (
        "answered 401: unknown model. Try again..."
    )
    assert masked("see https://host:8000/@me/a?page=2", KEY) == "see https://host:8000/@me/a?page=2"
    assert masked(f"at https://me:p@{PASSWORD}@host/v1?sig={PASSWORD}&page=2") == (
        "at https://…@host/v1?sig=…&page=2"
    )
