"""Profiles, embeddings and a split made elsewhere, through the command."""

import json
import pickle

import duckdb
import numpy as np
import pytest
from scipy import sparse

from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_project import CONFIG, World
from tests.support.toy_world import MEDIUM

SMALL = (
    "--set",
    "training.seeds=[1]",
    "--set",
    "models={BPR: {hyperparameters: {embedding_size: 8, train_batch_size: 64}}}",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory, prefect_server):
    folder = tmp_path_factory.mktemp("imports")
    MEDIUM.write(folder)
    config = folder / "toy.yaml"
    config.write_text(CONFIG.format(folder=folder))
    rows = [row.split("\t") for row in (folder / "toy.inter").read_text().splitlines()[1:]]
    places: dict[str, int] = {}
    with (folder / "base.tsv").open("w") as base, (folder / "test.tsv").open("w") as test:
        for row in rows:
            places[row[0]] = places.get(row[0], 0) + 1
            (test if places[row[0]] > 8 else base).write("\t".join(row) + "\n")
    return World(folder, folder / "data", config, prefect_server)


def origins(world):
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as results:
        return results.execute(
            "SELECT profile_source, profile_provenance, llm_model, embedding_model FROM runs "
            "WHERE arm = 'transfer'"
        ).fetchall()


def states(run):
    return {stage["name"]: stage["state"] for stage in run["stages"]}


def test_imported_profiles_on_a_split_of_files(world):
    texts = {f"u{n}": f"Loves {'horror' if n % 2 else 'comedy'} {n}." for n in range(60)}
    path = world.folder / "profiles.json"
    path.write_text(json.dumps(texts))
    settings = [
        *SMALL,
        "--set=split.strategy=files",
        f"--set=split.train={world.folder}/base.tsv",
        f"--set=split.test={world.folder}/test.tsv",
        "--set=profiles.provider=import",
        f"--set=profiles.path={path}",
        "--set=embeddings.provider=sentence-transformers",
    ]
    first = world.run(*settings)
    assert origins(world) == [("import", "unknown", None, "all-MiniLM-L6-v2")]
    assert states(first)["profiles"] == "ran"
    moved = path.rename(world.folder / "moved.json")
    again = world.run(*settings, f"--set=profiles.path={moved}")
    assert set(states(again).values()) == {"cached"}
    assert again["comparison"] == first["comparison"]
    moved.write_text(json.dumps(texts | {"stranger": "x"}))
    said = world.refused(*settings, f"--set=profiles.path={moved}")
    assert "1 of 61 user ids are not in the training part: stranger" in said


def test_imported_embeddings_need_no_profiles(world):
    rng = np.random.default_rng(0)
    path = world.folder / "user_embs.json"
    path.write_text(json.dumps({f"u{n}": rng.normal(size=12).tolist() for n in range(60)}))
    settings = [*SMALL, "--set=experiment=vectors", "--set=embeddings.provider=import"]
    run = world.run(*settings, f"--set=embeddings.path={path}")
    assert "profiles" not in states(run)
    assert len(run["comparison"]) > 0
    (found,) = [row for row in origins(world) if row[0] == "import" and "imported" in row[3]]
    assert found[1:3] == ("unknown", None)


@pytest.mark.parametrize(
    ("name", "folder"), [("yelp",) * 2, ("steam",) * 2, ("amazon-books", "amazon")]
)
def test_the_shipped_configurations_read_what_rlmrec_publishes(
    world, tmp_path, monkeypatch, name, folder
):
    monkeypatch.chdir(tmp_path)
    published = tmp_path / "RLMRec" / "data" / folder
    published.mkdir(parents=True)
    rng, shape = np.random.default_rng(3), (40, 30)
    part = rng.choice(5, shape, p=[0.6, 0.25, 0.05, 0.05, 0.05])
    part[:, 0] = 1
    held = {
        f"{short}_mat": sparse.csr_matrix((part == code).astype(np.float32))
        for short, code in (("trn", 1), ("val", 2), ("tst", 3))
    }
    for side, n in zip(("usr", "itm"), shape, strict=True):
        held[f"{side}_prf"] = {i: {"profile": f"Text {i}", "reasoning": "…"} for i in range(n)}
        held[f"{side}_emb_np"] = rng.normal(size=(n, 24))
    for file, content in held.items():
        (published / f"{file}.pkl").write_bytes(pickle.dumps(content))
    done = world.llmkt("data", "convert", f"RLMRec/data/{folder}", f"data/rlmrec/{folder}")
    assert done.returncode == 0, done.stderr
    config = str(PROJECT_ROOT / "configs" / "datasets" / f"rlmrec-{name}.yaml")
    assert config in {str(path) for path in (PROJECT_ROOT / "configs" / "datasets").iterdir()}
    small = ["--set=training.seeds=[1]", "--set=training.epochs=1"]
    if name != "yelp":
        small.append("--set=models={EASE: {transfer: {side: items}}}")
    done = world.llmkt("run", config, "--json", *small)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout.splitlines()[-1])
    assert {"profiles"}.isdisjoint(states(run))
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as results:
        query = "SELECT DISTINCT model FROM runs WHERE experiment = ? AND arm = 'transfer'"
        models = {row[0] for row in results.execute(query, [f"rlmrec-{name}"]).fetchall()}
    assert models == ({"LightGCN", "BPR", "EASE"} if name == "yelp" else {"EASE"})
