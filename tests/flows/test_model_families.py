"""Models of every family through the command: ranking, likes, controls, KAR, inspection."""

import json
from importlib.util import find_spec
from pathlib import Path

import duckdb

pytest_plugins = ("tests.support.toy_project",)


def test_models_of_every_family_train_with_controls_and_references(world):
    """Graph, context-aware and sequential models beside a computed one, with control arms."""
    made = world.run(
        "--set",
        "experiment=families",
        "--set",
        "split.strategy=leave-one-out",
        "--set",
        "training={workers: 1, epochs: 2, patience: 2, seeds: [1], "
        "arms: [baseline, transfer, shuffled, noise, genre-histogram, history-svd, genres-years, "
        "log-factors, zeros]}",
        "--set",
        "models={LightGCN: {transfer: {side: both}}, DeepFM: {transfer: {side: items}}, "
        "SASRec: {hyperparameters: {hidden_size: 16}}, Pop: {}, "
        "MultiVAE: {transfer: {alignment: teacher, side: items}}, "
        "iALS: {hyperparameters: {embedding_size: 8}, transfer: {side: both}}, "
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
    arms |= {"genres-years", "log-factors", "zeros"}
    models = ("LightGCN", "DeepFM", "SASRec", "EASE", "iALS", "MultiVAE")
    trained = {(model, arm) for model in models for arm in arms}
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
        ("MultiVAE", None, "none"),
        ("SASRec", "forward", "none"),
        ("iALS", None, "none"),
    ]
    assert rows == [
        ("baseline", None, None, None),
        ("genre-histogram", None, None, "forward"),
        ("genres-years", None, None, "forward"),
        ("history-svd", None, None, "forward"),
        ("log-factors", None, None, "forward"),
        ("noise", "none", "offline", "forward"),
        ("shuffled", "none", "offline", "forward"),
        ("transfer", "none", "offline", "forward"),
        ("zeros", None, None, "forward"),
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


LIKES = (
    "--set",
    "experiment=likes",
    "--set",
    "evaluation={like_from: 4, metrics: [auc, logloss], primary: auc}",
    "--set",
    "training={workers: 1, epochs: 2, patience: 2, seeds: [1, 2], valid_metric: auc, "
    "arms: [baseline, transfer, kar, llm-cf, llm-cf-shuffled, llm-cf-no-thoughts]}",
    "--set",
    "models={DCN: {hyperparameters: {train_batch_size: 256}}}",
)


def test_likes_are_predicted_with_transfer_kar_and_llm_cf(world):
    made = world.run(*LIKES)
    compared = {(row["model"], row["arm"], row["metric"], row["k"]) for row in made["comparison"]}
    arms = "transfer", "kar", "llm-cf", "llm-cf-shuffled", "llm-cf-no-thoughts"
    pairs = {("DCN", arm) for arm in arms}
    assert compared == {(*pair, metric, None) for pair in pairs for metric in ("auc", "logloss")}
    with duckdb.connect(str(world.data / "results.duckdb"), read_only=True) as connection:
        [(n_users,)] = connection.execute(
            "SELECT count(DISTINCT user_id) FROM user_metrics JOIN runs USING (run_id) "
            "WHERE experiment = 'likes'"
        ).fetchall()
        apart = connection.execute(
            "SELECT max(abs(value - of_users)) FROM metrics JOIN (SELECT run_id, metric, "
            "avg(value) AS of_users FROM user_metrics GROUP BY ALL) USING (run_id, metric) "
            "JOIN runs USING (run_id) WHERE experiment = 'likes' AND split = 'test'"
        ).fetchall()
        whole = connection.execute(
            "SELECT DISTINCT alignment, reduction, layer, profile_source FROM runs "
            "WHERE experiment = 'likes' AND arm NOT IN ('baseline', 'transfer')"
        ).fetchall()
    assert n_users == 60
    assert apart[0][0] < 1e-9
    assert whole == [(None, "none", None, "offline")]
    page = Path(made["report"]).read_text(encoding="utf-8")
    assert "predicted likes of held-out pairs" in page
    again = world.run(*LIKES)
    assert {stage["state"] for stage in again["stages"]} == {"cached"}
