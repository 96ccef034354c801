"""`llmkt profiles`: what it shows, and that looking asks nobody and pays nothing."""

import hashlib
import json
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import common
from flows.cli import profiles as profiles_commands
from models.llm.pricing import PriceTable
from models.profiles.text_diff import cosines, distribution, words_changed
from tasks.config.pipeline_file import load
from tasks.embeddings import embeddings_task
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.text_models import TextModel
from tasks.inspection import prompt_cost
from tasks.inspection.current_profiles import request_of
from tasks.inspection.token_counter import TokenCounter
from tasks.profiles.profiles_task import profiles
from tests.support.fake_llm import completion

pytest_plugins = ("tests.support.fake_llm",)
pytestmark = pytest.mark.usefixtures("no_run_logger")

TITLES = ["Heat", "Alien", "Psycho", "Solaris", "Brazil", "Amadeus", "Vertigo", "Rope", "Jaws"]
PROMPT = """{% block system %}Describe.{% endblock %}
{% block user %}Likes {% for film in liked %}{{ film.title }}{% endfor %}{% endblock %}"""


@pytest.fixture
def world(tmp_path, data_dir, llm, monkeypatch):
    """A configuration of six users whose profiles an LLM on loopback would write."""
    assert data_dir
    rows = [f"u{n}\ti{(n + k) % 9}\t{5 - k % 3}\t{k}" for n in range(6) for k in range(6)]
    (tmp_path / "toy.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "\n".join(rows) + "\n"
    )
    items = [f"i{n}\t{title}\t{1970 + n}\tDrama" for n, title in enumerate(TITLES)]
    (tmp_path / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\tyear:token\tgenres:token_seq\n" + "\n".join(items) + "\n"
    )
    (tmp_path / "mine.j2").write_text(PROMPT)
    llm_settings = {"base_url": llm.url, "api_key_env": "LLMKT_TEST_KEY", "max_tokens": 50}
    settings = {
        "experiment": "toy",
        "dataset": {
            "name": "toy",
            "path": str(tmp_path),
            "title": "title",
            "year": "year",
            "genres": "genres",
        },
        "models": {"BPR": {}},
        "profiles": {
            "provider": "openai",
            "prompt": str(tmp_path / "mine.j2"),
            "max_missing": 1.0,
            "llm": llm_settings,
        },
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(common, "configure_prefect", lambda *_: None)
    return path


def llmkt(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(profiles_commands.app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def ask(path, *overrides: str):
    """What a run does up to the profiles."""
    pipeline = load(path, overrides)
    request = request_of(pipeline, "users")
    return profiles.fn(request.config, request.prompt, request.train, request.items)


def test_preview_counts_without_asking_and_without_a_key(world, llm, monkeypatch):
    monkeypatch.delenv("LLMKT_TEST_KEY")
    found = json.loads(llmkt("preview", world, "-n", 2, "--json"))
    assert llm.requests == []
    assert (found["subjects"], found["prompts"], found["answered"]) == (6, 6, 0)
    assert [sample["id"] for sample in found["samples"]] == ["u0", "u1"]
    assert found["samples"][0]["system"] == "Describe."
    assert found["samples"][0]["user"].startswith('Likes "')
    assert found["tokens"] == "estimated"
    assert found["completion_tokens"] == 6 * 50
    assert "estimated" in llmkt("preview", world)


def test_preview_multiplies_tokens_by_prices(world, monkeypatch):
    monkeypatch.setattr(TokenCounter, "count", lambda _, chats: [100] * len(chats))
    dear = {"input_per_million": 10, "output_per_million": 20}
    vectors = {"input_per_million": 1, "output_per_million": 0}
    table = {"date": "2026-01-02", "prices": {"dear": dear, "vectors": vectors}}
    monkeypatch.setattr(prompt_cost, "price_table", lambda _: PriceTable.model_validate(table))
    # 6 prompts of 100 tokens at 10 $, 6 answers of 50 at 20 $, per million: .006 + .006.
    found = json.loads(llmkt("preview", world, "--json", "--set", "profiles.llm.model=dear"))
    (cost,) = found["costs"]
    assert cost["standard_usd"] == pytest.approx(0.012)
    assert cost["batch_usd"] == pytest.approx(0.006)
    assert found["to_pay_usd"] == pytest.approx(0.012)
    batch = ["--set", "profiles.llm.model=dear", "--set", "profiles.provider=openai-batch"]
    assert json.loads(llmkt("preview", world, "--json", *batch))["to_pay_usd"] == pytest.approx(
        0.006
    )
    unlisted = json.loads(llmkt("preview", world, "--json", "--set", "profiles.llm.model=mine"))
    assert unlisted["to_pay_usd"] is None
    assert "left to pay: not known" in llmkt(
        "preview", world, "-n", 0, "--set", "profiles.llm.model=mine"
    )


def test_preview_knows_what_is_answered(world, llm):
    titles = json.loads(llmkt("preview", world, "--json"))["samples"][0]["user"].split('"')[1]
    llm.script = {titles: [lambda _: completion("")] * 20}
    ask(world, "profiles.llm.max_retries=0")
    answered = 6 - sum(
        sample["user"].split('"')[1] == titles
        for sample in json.loads(llmkt("preview", world, "-n", 6, "--json"))["samples"]
    )
    assert 0 < answered < 6
    asked = len(llm.requests)
    found = json.loads(llmkt("preview", world, "-n", 6, "--json"))
    assert found["answered"] == answered
    assert sum(sample["answered"] for sample in found["samples"]) == answered
    assert found["to_pay_usd"] > 0
    llm.script = {}
    ask(world)
    done = json.loads(llmkt("preview", world, "--json"))
    assert (done["answered"], done["to_pay_usd"]) == (6, 0.0)
    again = json.loads(llmkt("preview", world, "--json", "--set", "profiles.llm.seed=8"))
    assert again["answered"] == 0
    assert len(llm.requests) == asked + 6 - answered


def test_preview_of_offline_profiles_shows_what_an_llm_would_be_asked(world, llm):
    text = llmkt("preview", world, "--set", "profiles.provider=offline")
    assert "profiles are offline: a run asks no LLM and pays nothing" in text
    assert 'Likes "' in text
    items = json.loads(llmkt("preview", world, "--side", "items", "--json"))
    assert items["prompt"] == "item-movies"
    assert items["configured_provider"] == "offline"
    assert items["samples"][0]["user"].startswith("Film: ")
    assert llm.requests == []


def test_preview_masks_titles_that_are_to_be_masked(world):
    text = llmkt("preview", world, "-n", 6, "--set", "profiles.history.titles=masked")
    assert '"Drama, 19' in text
    assert not any(title in text for title in TITLES)


def test_mistakes_end_with_code_2(world, tmp_path):
    (tmp_path / "mine.j2").write_text("---\ntemprature: 1\n---\n" + PROMPT)
    message = llmkt("preview", world, code=2)
    assert "did you mean temperature?" in message
    (tmp_path / "mine.j2").write_text(PROMPT)
    assert "no user u77" in llmkt("show", world, "u77", code=2)
    llmkt("preview", world, "--side", "cats", code=2)
    vectors = ["--set", "embeddings.provider=import", "--set", "embeddings.path=x.npy"]
    assert "imports the vectors" in llmkt("show", world, "u1", *vectors, code=2)


def test_show_tells_the_profile_and_what_it_saw(world, llm):
    before = llmkt("show", world, "u1")
    assert "There is no profile yet" in before
    assert f"llmkt run {world}" in before.replace("\n", "")
    assert llm.requests == []
    ask(world)
    found = json.loads(llmkt("show", world, "u1", "--json"))
    assert found["text"].startswith("A profile of one who Likes")
    assert (found["source"], found["llm_model"]) == ("openai", "gpt-4o-mini")
    assert found["provenance"] == "train-only"
    assert found["history_count"] == len(found["saw"]) == 4
    assert len(found["history_sha256"]) == 64
    liked = found["text"].split('"')[1::2]
    assert set(liked) <= {seen["title"] for seen in found["saw"]} <= set(TITLES)
    assert "provenance: train-only" in llmkt("show", world, "u1")


def test_show_of_offline_and_item_profiles(world):
    offline = ["--set", "profiles.provider=offline", "--set", "profiles.history.limit=1"]
    found = json.loads(llmkt("show", world, "u1", "--json", *offline))
    assert found["text"].endswith("over 4 titles.")
    assert found["history_count"] == len(found["saw"]) == 4
    item = json.loads(llmkt("show", world, "i3", "--side", "items", "--json"))
    assert item["text"].startswith("Solaris (1973).")
    assert (item["history_count"], item["saw"]) == (24, None)


def test_a_run_s_profiles_become_a_pack_that_needs_no_llm(world, llm, tmp_path):
    pack, by = tmp_path / "shared", ("--author", "a model", "--license", "MIT")
    assert "no user has a text yet" in llmkt("export", world, pack, *by, code=2)
    ask(world)
    assert "texts about users by a model" in llmkt("export", world, pack, *by)
    asked = len(llm.requests)
    settings = ("--set", "profiles.provider=pack", "--set", f"profiles.path={pack}")
    found = json.loads(llmkt("show", world, "u1", "--json", *settings))
    assert found["text"].startswith("A profile of one who Likes")
    assert found["provenance"] == "train-only"
    assert len(llm.requests) == asked
    again = json.loads(llmkt("export", world, tmp_path / "copy", *by, *settings, "--json"))
    assert again["users"]["prompt_sha256"] == found_prompt(pack)
    offline = ("--set", "profiles.provider=offline")
    assert "no LLM answered" in llmkt("export", world, pack, *by, *offline, code=2)


def found_prompt(pack) -> str:
    return yaml.safe_load((pack / "card.yaml").read_text())["users"]["prompt_sha256"]


def embed(path, monkeypatch, vectors, *overrides: str):
    """Put a vector into the store for every profile of a configuration, by its user's number."""

    @contextmanager
    def model(_config, texts):
        yield TextModel(lambda batch: [vectors(text) for text in batch], [1] * len(texts), 16)

    monkeypatch.setattr(embeddings_task, "open_text_model", model)
    pipeline = load(path, overrides)
    embeddings.fn(pipeline.embeddings, ask(path, *overrides).profiles)


def test_diff_shows_words_and_how_far_vectors_moved(world, llm, monkeypatch):
    change = "profiles.llm.temperature=1"
    llm.default = lambda body: completion("Calm " + body["messages"][1]["content"])
    embed(world, monkeypatch, lambda _: [1.0, 0.0])
    llm.default = lambda body: completion("Wild " + body["messages"][1]["content"])
    first = next(iter(llm.requests))["messages"][1]["content"]
    embed(world, monkeypatch, lambda text: [0.6, 0.8] if first in text else [1.0, 0.0], change)
    asked = len(llm.requests)
    found = json.loads(llmkt("diff", world, world, "--set-b", change, "-n", 2, "--json"))
    assert (found["both"], found["same_text"], found["compared"]) == (6, 0, 6)
    assert found["cosines"]["min"] == pytest.approx(0.6)
    assert found["cosines"]["mean"] == pytest.approx(5.6 / 6)
    assert found["cosines"]["median"] == pytest.approx(1.0)
    farthest = found["changes"][0]
    assert farthest["cosine"] == pytest.approx(0.6)
    assert farthest["words"][:2] == [["removed", "Calm"], ["added", "Wild"]]
    assert "".join(farthest["words"][2][1].split()) == "".join(first.split())
    text = llmkt("diff", world, world, "--set-b", change)
    assert "[-Calm-] {+Wild+} Likes" in text
    assert "6 users have a profile in both, 0 of them the same text" in text
    other = ["--set-b", change, "--set-b", "embeddings.precision=float32"]
    assert "not compared: they are embedded by different text models" in llmkt(
        "diff", world, world, *other
    ).replace("\n", " ")
    assert len(llm.requests) == asked


def test_diff_says_what_is_not_there_and_what_computes_it(world, llm):
    change = "profiles.llm.temperature=1"
    text = llmkt("diff", world, world, "--set-b", change).replace("\n", "")
    assert "6 of 6 users have no profile yet" in text
    assert f"llmkt run {world} --set {change}" in text
    ask(world)
    found = json.loads(llmkt("diff", world, world, "--set-b", change, "--json"))
    assert (found["a"]["written"], found["a"]["embedded"], found["b"]["written"]) == (6, 0, 0)
    assert (found["both"], found["compared"], found["cosines"]) == (0, 0, {})
    same = json.loads(llmkt("diff", world, world, "--json"))
    assert (same["both"], same["same_text"], same["changes"]) == (6, 6, [])
    assert len(llm.requests) == 6


def test_words_are_compared_one_by_one():
    assert words_changed("likes slow dramas", "likes loud dramas too") == [
        ("same", "likes"),
        ("removed", "slow"),
        ("added", "loud"),
        ("same", "dramas"),
        ("added", "too"),
    ]
    assert words_changed("a b", "a b") == [("same", "a b")]


def test_cosines_are_taken_row_by_row():
    before = np.array([[3, 4], [1, 0], [0, 0]], np.float32)
    after = np.array([[4, 3], [-2, 0], [1, 1]], np.float32)
    np.testing.assert_allclose(cosines(before, after), [0.96, -1.0, 0.0])
    spread = distribution(np.array([0.0, 1.0, 0.5]))
    assert (spread["mean"], spread["median"], spread["p25"]) == (0.5, 0.5, 0.25)
    assert distribution(np.array([])) == {}


def test_tokens_are_exact_where_the_tokenizer_is_on_disk(tmp_path, monkeypatch):
    class Words:
        name = "words"

        def encode(self, text, disallowed_special):
            assert disallowed_special == ()
            return text.split()

    class Tiktoken:
        encoding_name_for_model = staticmethod({"gpt": "words"}.__getitem__)
        get_encoding = staticmethod(lambda _: Words())

    monkeypatch.setitem(sys.modules, "tiktoken", Tiktoken)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    # Known, but not on disk: tiktoken would fetch it.
    assert TokenCounter("gpt").how == "estimated"
    monkeypatch.setattr("tasks.inspection.token_counter._SOURCE", "{}")
    (tmp_path / hashlib.sha1(b"words").hexdigest()).write_text("")
    counter = TokenCounter("gpt")
    assert counter.how == "exact, words"
    chat = [{"role": "system", "content": "a b"}, {"role": "user", "content": "c d e"}]
    # 5 words, 4 for either message's frame, 3 that open the answer.
    assert counter.count([chat]) == [5 + 8 + 3]
    assert TokenCounter("llama").how == "estimated"


def test_an_estimate_goes_by_characters_after_the_first_thousand(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    counter = TokenCounter("gpt-4o-mini")
    monkeypatch.setattr("tasks.inspection.token_counter._COUNTED", 1)
    text = "A viewer who likes slow dramas. " * 20
    first, second = (counter.count([[{"role": "user", "content": text}]]) for _ in range(2))
    # 7 tokens a sentence of MiniLM's, times 1.1.
    assert first == [round(140 * 1.1) + 7] == second
