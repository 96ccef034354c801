"""The whole pipeline through the command, on a small data set: caching, leaks, exit codes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_llm import KEY, TEMPLATE, FakeLLM

from models.config import Split
from models.split import split
from tasks.storage import PROJECT_ROOT

pytest_plugins = ("fake_llm",)

CONFIG = """
experiment: toy
dataset: {{name: toy, path: {folder}, title: title, year: year, genres: genres}}
targets: {{reduction: pca}}
models:
  BPR: {{hyperparameters: {{embedding_size: 8, train_batch_size: 64}}}}
  MultiVAE: {{hyperparameters: {{latent_dimension: 16, train_batch_size: 16}}}}
training: {{epochs: 4, patience: 2, seeds: [1, 2]}}
evaluation: {{k: [5, 10], primary: ndcg@10}}
"""
STAGES = ["interactions", "split", "profiles", "embeddings", "targets"]


@dataclass
class World:
    """A small data set, its configuration and a data folder."""

    folder: Path
    data: Path
    config: Path
    api: str

    def llmkt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Call the command as a user would."""
        settings = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
        settings |= {"LLMKT_DATA_DIR": str(self.data), "PREFECT_API_URL": self.api} | environment
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=PROJECT_ROOT,
            env=settings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *arguments: str, **environment: str) -> dict:
        """A successful run's JSON."""
        done = self.llmkt("run", str(self.config), "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one sentence of a run that ends with exit code 2."""
        done = self.llmkt("run", str(self.config), *arguments, **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())


def write_data(folder: Path) -> None:
    """60 users of two tastes, 40 films; some titles are unique words."""
    rng = np.random.default_rng(3)
    rows, lines = [], []
    for user in range(60):
        liked = rng.permutation(20)[:10] + 20 * (user % 2)
        rows += [f"u{user}\ti{i}\t{rng.integers(1, 6)}\t{rng.integers(1, 10**6)}" for i in liked]
    for item in range(40):
        genre = "Comedy" if item < 20 else "Horror"
        lines.append(f"i{item}\tTitle{item}word\t{1960 + item}\t{genre}")
    (folder / "toy.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "\n".join(rows) + "\n"
    )
    (folder / "toy.item").write_text(
        "item_id:token\ttitle:token_seq\tyear:token\tgenres:token_seq\n" + "\n".join(lines) + "\n"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory, prefect_server) -> World:
    folder = tmp_path_factory.mktemp("toy")
    write_data(folder)
    config = folder / "toy.yaml"
    config.write_text(CONFIG.format(folder=folder))
    return World(folder, folder / "data", config, prefect_server)


@pytest.fixture(scope="module")
def first(world) -> dict:
    return world.run()


def states(summary: dict) -> dict[str, str]:
    return {
        " ".join(filter(None, (s["name"], s["model"], s["arm"]))): s["state"]
        for s in summary["stages"]
    }


def test_one_command_goes_from_files_to_a_comparison(world, first):
    trainings = [f"training {m} {a}" for m in ("BPR", "MultiVAE") for a in ("baseline", "transfer")]
    assert list(states(first)) == [*STAGES, *trainings, "evaluation", "report"]
    assert set(states(first).values()) == {"ran"}
    assert Path(first["report"]).read_text().startswith("<!doctype html")
    compared = {(row["model"], row["metric"], row["k"]) for row in first["comparison"]}
    assert len(compared) == 2 * 6 * 2
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        runs = connection.sql(
            "SELECT model, arm, seed, profile_source, profile_provenance, epochs_run FROM runs"
        ).fetchall()
        assert len(runs) == 8
        assert {(r[3], r[4]) for r in runs if r[1] == "transfer"} == {("offline", "train-only")}
        assert all(2 <= r[5] <= 4 for r in runs)
        counts = connection.sql(
            "SELECT count(*), count(DISTINCT user_id) FROM user_metrics"
        ).fetchall()[0]
        assert counts == (8 * 60 * 12, 60)


def test_the_same_run_again_is_cached_throughout(world, first):
    again = world.run()
    assert set(states(again).values()) == {"cached"}
    assert again["comparison"] == first["comparison"]


def test_a_change_redoes_only_what_it_touches(world, first):
    assert first
    changed = states(world.run("--set", "targets.reduction=umap"))
    for name, state in changed.items():
        touched = name in ("targets", "evaluation", "report") or "transfer" in name
        assert state == ("ran" if touched else "cached"), name
    longer = states(world.run("--set", "transfer.alpha=0.5", "--set", "training.seeds=[1, 2, 3]"))
    assert longer["training BPR baseline"] == "partial"
    assert longer["training BPR transfer"] == "ran"
    assert {longer[name] for name in STAGES} == {"cached"}


def test_deleted_and_altered_artifacts_heal(world, first):
    assert first
    (profiles,) = [
        path
        for path in (world.data / "artifacts" / "profiles").glob("*.parquet")
        if "text" in pq.read_schema(path).names
    ]
    profiles.unlink()
    for path in (world.data / "artifacts" / "targets").glob("*.parquet"):
        path.write_bytes(b"not a parquet file")
    healed = states(world.run())
    assert healed["profiles"] == "ran"
    assert healed["targets"] == "ran"
    assert healed["embeddings"] == "cached"  # the same profiles came back
    assert {s for name, s in healed.items() if name.startswith("training")} == {"cached"}


def test_no_held_out_interaction_reaches_a_profile(world, first):
    """Every title is one word: a profile may only name titles of its user's training items."""
    assert first
    folder = world.data / "artifacts"
    whole = next((folder / "interactions").glob("*.parquet"))
    train, valid, test = split(pq.read_table(whole), Split())
    seen = {user: set() for user in train["user_id"].to_pylist()}
    for user, item in zip(train["user_id"].to_pylist(), train["item_id"].to_pylist(), strict=True):
        seen[user].add(f"Title{item[1:]}word")
    held_out, named = 0, 0
    for part in (valid, test):
        held_out += part.num_rows
    for path in (folder / "profiles").glob("*.parquet"):
        table = pq.read_table(path)
        if "text" not in table.column_names:
            continue
        for row in table.to_pylist():
            titles = set(re.findall(r"Title\d+word", row["text"]))
            assert titles <= seen[row["user_id"]]
            named += len(titles)
    assert named > 60
    assert held_out > 100


def test_an_edited_prompt_redoes_what_follows_and_the_key_stays_secret(world, first, server):
    assert first
    server.clear()
    llm = FakeLLM(server)
    server.expect_request("/v1/chat/completions").respond_with_handler(llm.handle)
    prompt = world.folder / "mine.j2"
    prompt.write_text(TEMPLATE)
    overrides = [
        "profiles.provider=openai",
        f"profiles.llm.base_url={llm.url}",
        f"profiles.prompt={prompt}",
    ]
    arguments = [part for override in overrides for part in ("--set", override)]

    asked = states(world.run(*arguments, OPENAI_API_KEY=KEY))
    assert asked["profiles"] == "ran"
    n_prompts = len(llm.requests)
    assert 10 < n_prompts == len(llm.titles())  # equal prompts are asked once
    assert llm.keys == {f"Bearer {KEY}"}
    assert not any("u1" in json.dumps(request["messages"]) for request in llm.requests)

    assert set(states(world.run(*arguments, OPENAI_API_KEY=KEY)).values()) == {"cached"}
    assert len(llm.requests) == n_prompts

    prompt.write_text(TEMPLATE.replace("Likes", "Enjoys"))
    edited = states(world.run(*arguments, OPENAI_API_KEY=KEY))
    for name, state in edited.items():
        untouched = name in ("interactions", "split") or "baseline" in name
        assert state == ("cached" if untouched else "ran"), name
    assert len(llm.requests) == 2 * n_prompts
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        calls = connection.sql("SELECT count(*) FROM llm_calls WHERE NOT cached").fetchall()
        assert calls == [(2 * n_prompts,)]
    leaked = [p for p in world.data.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert not leaked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "dataset.name=absent"], "absent.inter does not exist; set dataset.path"),
        (["--set", "training.epoch=3"], "training.epoch is not a known key, did you mean epochs"),
        (["--set", "models={Nonesuch: {}}"], "models.Nonesuch: not a supported model"),
        (["--set", "transfer.alpha=7"], "transfer.alpha: input should be less than or equal to 1"),
        (["--set", "evaluation.k=[10, 50]"], "50 is larger than the number of items, 40"),
        (["--set", "targets.width=32"], "targets.width is 32, but the tapped layer user_embedding"),
        (
            ["--set", "profiles.provider=openai"],
            "OPENAI_API_KEY",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(world, first, arguments, message):
    assert first
    assert message in world.refused(*arguments)


def test_an_unreachable_endpoint_is_named(world, first):
    assert first
    url = "http://127.0.0.1:9/v1"
    overrides = ["profiles.provider=openai", f"profiles.llm.base_url={url}"]
    arguments = [part for override in overrides for part in ("--set", override)]
    assert url in world.refused(*arguments, OPENAI_API_KEY="canary")


def test_a_user_with_a_single_interaction_and_an_empty_data_set(world, tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (tmp_path / "toy.inter").write_text(header)
    elsewhere = ["--set", f"dataset.path={tmp_path}"]
    assert "toy.inter holds no interactions" in world.refused(*elsewhere)
    rows = "".join(f"a\ti{i}\t3\t{i}\n" for i in range(12)) + "lonely\ti1\t3\t1\n"
    (tmp_path / "toy.inter").write_text(header + rows)
    message = world.refused(*elsewhere)
    assert "user lonely (1); set split.short_histories" in message


def test_compare_and_report_find_what_a_run_left(world, first):
    rows = json.loads(world.llmkt("compare", "--experiment", "toy", "--format", "json").stdout)
    assert {row["model"] for row in rows} == {"BPR", "MultiVAE"}
    assert "NDCG@10" in world.llmkt("compare").stdout
    assert Path(world.llmkt("report").stdout.strip()) == Path(first["report"])
    absent = world.llmkt("compare", "--experiment", "absent")
    assert absent.returncode == 2
    assert "which has toy" in absent.stderr
    models = json.loads(world.llmkt("models", "--json").stdout)
    supported = {row["model"] for row in models if row["supported"]}
    assert {"BPR", "NeuMF", "SimpleX", "MultiVAE", "LightGCN", "DeepFM", "EASE"} <= supported


def test_models_of_every_family_train_with_controls_and_references(world):
    """Graph, context-aware and sequential models beside a computed one, with control arms."""
    made = world.run(
        "--set",
        "experiment=families",
        "--set",
        "split.strategy=leave-one-out",
        "--set",
        "training={epochs: 2, patience: 2, seeds: [1], "
        "arms: [baseline, transfer, shuffled, noise, genre-histogram, history-svd]}",
        "--set",
        "models={LightGCN: {transfer: {side: both}}, DeepFM: {transfer: {side: items}}, "
        "SASRec: {hyperparameters: {hidden_size: 16}}, Pop: {}, "
        "EASE: {hyperparameters: {reg_weight: 10.0}, transfer: {side: items, alpha: 0.5}}}",
        "--set",
        "transfer.alignment=linear",
        "--set",
        "targets.reduction=null",
    )
    trainings = {
        (stage["model"], stage["arm"]) for stage in made["stages"] if stage["name"] == "training"
    }
    arms = {"baseline", "transfer", "shuffled", "noise", "genre-histogram", "history-svd"}
    trained = {(model, arm) for model in ("LightGCN", "DeepFM", "SASRec", "EASE") for arm in arms}
    assert trainings == trained | {("Pop", "baseline")}
    compared = {(row["model"], row["arm"]) for row in made["comparison"]}
    assert compared == {(model, arm) for model, arm in trained if arm != "baseline"}
    [reference] = made["references"]
    assert reference["model"] == "Pop"
    assert 0 < reference["mean"] <= 1
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "SELECT arm, reduction, profile_source, layer FROM runs "
            "WHERE experiment = 'families' AND model = 'SASRec' ORDER BY arm"
        ).fetchall()
        layers = connection.execute(
            "SELECT model, layer, reduction FROM runs WHERE experiment = 'families' "
            "AND arm = 'transfer' ORDER BY model"
        ).fetchall()
    assert layers == [
        ("DeepFM", "token_embedding_table.embedding", "none"),
        ("EASE", None, "none"),
        ("LightGCN", "forward, forward", "none"),
        ("SASRec", "forward", "none"),
    ]
    assert rows == [
        ("baseline", None, None, None),
        ("genre-histogram", None, None, "forward"),
        ("history-svd", None, None, "forward"),
        ("noise", "none", "offline", "forward"),
        ("shuffled", "none", "offline", "forward"),
        ("transfer", "none", "offline", "forward"),
    ]
    page = Path(made["report"]).read_text(encoding="utf-8")
    assert "Pop, without knowledge: NDCG@10" in page
    assert "Profiles of items" in page


def test_inspect_and_models_tell_what_can_be_tapped(world):
    done = world.llmkt("inspect", "LightGCN", "--json")
    found = json.loads(done.stdout)
    marked = {row["mark"]: row["name"] for row in found["taps"] if row["mark"]}
    assert marked == {"users, items": "forward"}
    assert found["chosen"]["users"] == "method forward, output 0, all rows, 64 wide"
    table = world.llmkt("inspect", "BPR").stdout
    assert "user_embedding.weight" in table
    assert "users: module user_embedding, 64 wide" in table
    refused = world.llmkt("inspect", "EASE")
    assert refused.returncode == 2
    assert "no layer to tap" in refused.stderr
    rows = {row["model"]: row for row in json.loads(world.llmkt("models", "--json").stdout)}
    assert set(rows["BPR"]) == {"model", "family", "supported", "tap", "reason"}
    assert not rows["RaCT"]["supported"]
    assert "three runs" in rows["RaCT"]["reason"]
    assert rows["EASE"]["tap"] is None
    names = set(rows)
    recbole = Path(find_spec("recbole").submodule_search_locations[0]) / "model"
    for family in ("general_recommender", "context_aware_recommender"):
        modules = {file.stem for file in (recbole / family).glob("[a-z]*.py")}
        assert modules - {name.lower() for name in names} == set()
