"""The whole pipeline through the command, on a small data set: caching, leaks, exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from models.config import Split
from models.dataset.splitting import split
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.fake_llm import KEY, TEMPLATE, FakeLLM
from tests.support.toy_project import states

pytest_plugins = ("tests.support.fake_llm", "tests.support.toy_project")

STAGES = ["interactions", "split", "profiles", "embeddings", "targets"]


def test_the_command_starts_without_what_only_a_stage_needs():
    heavy = "{'torch', 'sklearn', 'openai', 'umap', 'recbole', 'plotly'}"
    code = f"import sys, flows.knowledge_transfer; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT
    )
    assert done.stdout.strip() == "[]"


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


def test_a_data_folder_from_before_a_move_of_the_code_runs_again(world, first):
    """Results name their classes by module; here by modules that do not exist any more."""
    for path in (world.data / "cache").iterdir():
        path.write_text(
            path.read_text().replace('__class__\\": \\"tasks.', '__class__\\": \\"tasks.old_')
        )
    again = world.run()
    assert states(again)["training BPR transfer"] == "ran"
    assert again["comparison"] == first["comparison"]
    assert set(states(world.run()).values()) == {"cached"}


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

    assert not [p for p in world.data.rglob("*") if p.is_file() and b"astronaut" in p.read_bytes()]
    # What the prompt's own front matter asks for reaches it, and trains no baseline again.
    prompt.write_text(
        "---\nhistory: {demographics: [job]}\nmodel: tiny\n---\n"
        + TEMPLATE.replace("Likes", "As {{ user.job }} enjoys")
    )
    edited = states(world.run(*arguments, OPENAI_API_KEY=KEY))
    for name, state in edited.items():
        untouched = name == "split" or "baseline" in name
        assert state == ("cached" if untouched else "ran"), name
    assert len(llm.requests) == 2 * n_prompts
    told = [json.dumps(request) for request in llm.requests]
    assert ["astronaut" in text for text in told] == [False] * n_prompts + [True] * n_prompts
    assert all('"tiny"' in text for text in told[n_prompts:])
    assert not any("-code" in text for text in told)
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        calls = connection.sql("SELECT count(*) FROM llm_calls WHERE NOT cached").fetchall()
        assert calls == [(2 * n_prompts,)]
    leaked = [p for p in world.data.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert not leaked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "dataset.name=absent"], "absent.inter does not exist. Set dataset.path"),
        (["--set", "training.epoch=3"], "training.epoch is not a known key, did you mean epochs"),
        (["--set", "models={Nonesuch: {}}"], "models.Nonesuch: not a supported model"),
        (["--set", "transfer.alpha=7"], "transfer.alpha: input should be less than or equal to 1"),
        (["--set", "evaluation.k=[10, 50]"], "50 is larger than the number of items, 40"),
        (
            ["--set", "targets.reduction=umap", "--set", "transfer.alignment=mapped"],
            "targets.reduction is umap, but the alignment mapped of",
        ),
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
    assert "toy.inter: no interactions are left of 0 rows" in world.refused(*elsewhere)
    rows = "".join(f"a\ti{i}\t3\t{i}\n" for i in range(12)) + "lonely\ti1\t3\t1\n"
    (tmp_path / "toy.inter").write_text(header + rows)
    message = world.refused(*elsewhere)
    assert "user lonely (1). Set split.short_histories" in message


def test_compare_and_report_find_what_a_run_left(world, first):
    rows = json.loads(world.llmkt("compare", "--experiment", "toy", "--format", "json").stdout)
    assert {row["model"] for row in rows} == {"BPR", "MultiVAE"}
    assert "NDCG@10" in world.llmkt("compare").stdout
    assert Path(world.llmkt("report").stdout.strip()) == Path(first["report"])
    absent = world.llmkt("compare", "--experiment", "absent")
    assert absent.returncode == 2
    assert "Choose one of toy" in absent.stderr
    models = json.loads(world.llmkt("models", "--json").stdout)
    supported = {row["model"] for row in models if row["supported"]}
    assert {"BPR", "NeuMF", "SimpleX", "MultiVAE", "LightGCN", "DeepFM", "EASE"} <= supported
