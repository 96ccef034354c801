import json
import re
import subprocess
import sys
import threading
from datetime import timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from models.config import Evaluation
from models.errors import BadInput
from models.evaluation.user_scores import score
from models.report import wording
from models.schemas import INTERACTIONS, ITEMS, LLM_CALLS, PROFILES, RANKINGS, vectors
from tasks.execution.cache_key import cache_key
from tasks.execution.stage import VerifiedJSON
from tasks.results.database import database, database_path
from tasks.results.queries import comparison_rows
from tasks.storage.artifacts import PROJECT_ROOT, MissingArtifact, write_parquet
from tests.support import toy_runs
from tests.support.toy_runs import evaluated_run

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


@pytest.fixture
def inputs():
    config = toy_runs.pipeline()
    return [
        config,
        toy_runs.splits(),
        toy_runs.all_trained(config),
        toy_runs.described(),
        toy_runs.catalogue(),
    ]


def query(sql, *parameters):
    with database(read_only=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def everything():
    tables = (
        *("runs", "metrics", "user_metrics", "epochs", "llm_calls", "slices"),
        *("contrasts", "slice_contrasts"),
    )
    return {table: sorted(query(f"SELECT * FROM {table}"), key=repr) for table in tables}


def test_values_per_user_by_hand(inputs):
    evaluated_run(*inputs)
    found = query(
        "SELECT arm, seed, user_id, metric, k, value FROM user_metrics JOIN runs USING (run_id) "
        "WHERE model = 'BPR' AND metric = 'recall' AND k = 2 ORDER BY ALL"
    )
    assert found == [
        ("baseline", 1, "u1", "recall", 2, 0.5),
        ("baseline", 1, "u2", "recall", 2, 1.0),
        ("baseline", 2, "u1", "recall", 2, 0.0),
        ("baseline", 2, "u2", "recall", 2, 1.0),
        ("transfer", 1, "u1", "recall", 2, 1.0),
        ("transfer", 1, "u2", "recall", 2, 1.0),
        ("transfer", 2, "u1", "recall", 2, 1.0),
        ("transfer", 2, "u2", "recall", 2, 1.0),
    ]


def test_means_per_split_by_hand(inputs):
    evaluated_run(*inputs)
    found = query(
        "SELECT split, metric, k, value FROM metrics JOIN runs USING (run_id) "
        "WHERE arm = 'baseline' AND seed = 1 "
        "AND metric IN ('coverage', 'mrr', 'novelty', 'recall') ORDER BY ALL"
    )
    # Valid: u1 finds its item first, u3 does not; test: u1 finds one of two, u2 at rank 2.
    # Test shows i1 i4, then i5 i3, of 9 items; valid i4 i1 i2, then i3. Nobody has them in
    # training, so each counts as if one of 2 users had it: 1 bit.
    assert found == [
        ("test", "coverage", 1, pytest.approx(2 / 9)),
        ("test", "coverage", 2, pytest.approx(4 / 9)),
        ("test", "mrr", 1, 0.5),
        ("test", "mrr", 2, 0.75),
        ("test", "novelty", 1, 1.0),
        ("test", "novelty", 2, 1.0),
        ("test", "recall", 1, 0.25),
        ("test", "recall", 2, 0.75),
        ("valid", "coverage", 1, pytest.approx(3 / 9)),
        ("valid", "coverage", 2, pytest.approx(4 / 9)),
        ("valid", "mrr", 1, 0.5),
        ("valid", "mrr", 2, 0.5),
        ("valid", "novelty", 1, 1.0),
        ("valid", "novelty", 2, 1.0),
        ("valid", "recall", 1, 0.5),
        ("valid", "recall", 2, 0.5),
    ]


def test_comparison_by_hand(inputs):
    evaluated_run(*inputs)
    first, *others = comparison_rows("tiny")
    # Differences of u1, u2: .5 0 / 1 0. Seed means .25, .5; user means .75, 0.
    # MS_a = 2 * .03125 = .0625, MS_b = 2 * .28125 = .5625, residuals -+.125: MS_e = .0625.
    # Seeds .0625 / 4, users (.5625 - .0625) / 4, each with 1 degree of freedom.
    half = 12.7062 * (0.5625 / 4) ** 0.5
    assert first == {
        "experiment": "tiny",
        "dataset": "ml-100k",
        "model": "BPR",
        "arm": "transfer",
        "metric": "recall",
        "k": 2,
        "baseline_mean": pytest.approx(0.625),
        "baseline_sd": pytest.approx(0.125 * 2**0.5),
        "arm_mean": pytest.approx(1.0),
        "arm_sd": pytest.approx(0.0),
        "gain_percent": pytest.approx(60.0),
        "difference": pytest.approx(0.375),
        "ci_low": pytest.approx(0.375 - half, abs=1e-4),
        "ci_high": pytest.approx(0.375 + half, abs=1e-4),
        "p_value": pytest.approx(0.5),  # t = 1 with 1 degree of freedom
        "verdict": "no detectable difference",
        "profile_source": "offline",
        "profile_provenance": "train-only",
        "warnings": "Users: 1 of 2 texts are longer than the model reads.",
        "seeds": 2,
        "users": 2,
        "is_primary": True,
        "against": "baseline",
        "p_adjusted": pytest.approx(0.5),
        "effect_size": pytest.approx(0.375 / 0.3125**0.5),  # variances over users .125, .5
        "point": None,
        "splits": 1,
        "ci_level": 0.95,
        "claim": "A",
        "family": first["family"],
        "search_trials": 0,
    }
    assert re.fullmatch(r"\w{16}", first["family"])
    assert {(row["verdict"], row["family"]) for row in others} == {("exploratory", None)}
    assert [(row["metric"], row["k"], row["is_primary"]) for row in others] == [
        ("mrr", 1, False),
        ("mrr", 2, False),
        ("recall", 1, False),
    ]


def test_warnings_stand_beside_the_numbers(inputs):
    evaluated_run(*inputs)
    assert "Users: 1 of 2 texts are longer than the model reads." in wording.notes(
        comparison_rows("tiny")
    )


def test_runs_record_what_decided_them(inputs):
    config = inputs[0]
    evaluated_run(*inputs)
    with database(read_only=True) as connection:
        table = connection.sql("FROM runs ORDER BY arm, seed")
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    assert [(row["arm"], row["seed"]) for row in rows] == sorted(toy_runs.RANKED)
    baseline, transfer = rows[0], rows[2]
    only_transfer = {
        "alignment": "rmse",
        "reduction": "umap",
        "layer": "user_embedding",
        "alpha": 0.5,
        "prompt_hash": "0123456789abcdef",
        "profile_source": "offline",
        "embedding_model": "all-MiniLM-L6-v2",
        "profile_provenance": "train-only",
        "warnings": "Users: 1 of 2 texts are longer than the model reads.",
    }
    assert {name: transfer[name] for name in only_transfer} == only_transfer
    assert {baseline[name] for name in [*only_transfer, "llm_model"]} == {None}
    for row in (baseline, transfer):
        assert row["config_hash"] == config.digest()
        assert (row["epochs_budget"], row["epochs_run"], row["best_epoch"]) == (4, 4, 2)
        assert row["train_seconds"] == 1.5
        assert row["finished_at"] - row["started_at"] == timedelta(seconds=2)
        assert row["started_at"] == toy_runs.BEGAN
        assert len(row["run_id"]) == 16
        assert (row["patience"], row["valid_metric"], row["batch_size"]) == (5, "recall@2", 2048)
        assert (row["candidate_items"], row["search_trials"], row["is_current"]) == (9, 0, True)
        assert len(row["split_digest"]) == 16
        assert (row["device"], row["precision"]) == ("cpu", "float32")
    stored = json.loads(transfer["config"])
    assert stored["job"]["hyperparameters"] == {"embedding_size": 64}
    assert stored["evaluation"]["primary"] == "recall@2"
    assert "workers" not in stored["training"]


def test_epochs_and_calls_are_stored(inputs):
    evaluated_run(*inputs)
    assert query(
        "SELECT phase, epoch, transfer_loss, seconds FROM epochs JOIN runs USING (run_id) "
        "WHERE arm = 'transfer' AND seed = 1 ORDER BY epoch"
    ) == [
        ("transfer", 0, 0.9, 0.25),
        ("transfer", 1, 0.45, 0.25),
        ("finetune", 2, None, 0.25),
        ("finetune", 3, None, 0.25),
    ]
    assert query("SELECT profile_key, cost_usd, finished_at FROM llm_calls ORDER BY 1") == [
        ("k1", 0.001, toy_runs.BEGAN),
        ("k2", 0.001, toy_runs.BEGAN),
    ]


def test_evaluating_again_changes_nothing(inputs):
    first = evaluated_run(*inputs)
    before = everything()
    second = evaluated_run(*inputs)
    assert first == second
    assert everything() == before
    assert len(before["runs"]) == 4


def test_other_cut_offs_replace_a_runs_rows(inputs):
    first = evaluated_run(*inputs)
    inputs[0] = toy_runs.pipeline(
        evaluation={"metrics": ["recall"], "k": [2], "primary": "recall@2"}
    )
    second = evaluated_run(*inputs)
    assert second.run_ids == first.run_ids
    assert query("SELECT DISTINCT metric, k FROM metrics ORDER BY ALL") == [
        ("coverage", 2),
        ("gini", 2),
        ("novelty", 2),
        ("popularity", 2),
        ("recall", 2),
    ]
    assert len(comparison_rows("tiny")) == 1
    second.verify()
    with pytest.raises(MissingArtifact, match="no longer holds evaluation"):
        first.verify()


def test_another_alpha_keeps_the_baselines_runs(inputs):
    first = evaluated_run(*inputs)
    config = toy_runs.pipeline(transfer={"alpha": 0.9})
    second = evaluated_run(config, inputs[1], toy_runs.all_trained(config), *inputs[3:])
    assert len(set(first.run_ids) & set(second.run_ids)) == 2
    assert query("SELECT arm, alpha, count(*) FROM runs GROUP BY ALL ORDER BY ALL") == [
        ("baseline", None, 2),
        ("transfer", 0.5, 2),
        ("transfer", 0.9, 2),
    ]
    assert query("SELECT count(DISTINCT evaluation_id) FROM contrasts") == [(1,)]


def test_experiments_stand_side_by_side(inputs):
    evaluated_run(*inputs)
    inputs[0] = toy_runs.pipeline(experiment="other")
    evaluated_run(*inputs)
    assert {row["experiment"] for row in comparison_rows()} == {"tiny", "other"}
    assert {row["experiment"] for row in comparison_rows("other")} == {"other"}
    with pytest.raises(BadInput, match=r"no experiment 'tni'\. Choose one of other, tiny\.$"):
        comparison_rows("tni")


def test_one_arm_only_has_nothing_to_compare(inputs):
    inputs[0] = toy_runs.pipeline(training={"valid_metric": "recall@2", "arms": ["transfer"]})
    inputs[2] = [run for run in inputs[2] if run.job.arm == "transfer"]
    evaluated = evaluated_run(*inputs)
    assert evaluated.contrasts == ()
    evaluated.verify()
    with pytest.raises(BadInput, match=r"^tiny: no baseline with another arm .* training.arms"):
        comparison_rows("tiny")


def test_unequal_seeds_are_not_compared(inputs):
    inputs[2] = inputs[2][:-1]
    evaluated = evaluated_run(*inputs)
    verdicts = {contrast.estimate.verdict for contrast in evaluated.contrasts}
    assert verdicts == {"not comparable: seeds differ (baseline 1, 2; arm 1)"}
    assert comparison_rows("tiny")[0]["gain_percent"] is None


def test_no_database_yet():
    with pytest.raises(BadInput, match=r"results.duckdb: does not exist. Run `llmkt run CONFIG`"):
        comparison_rows("tiny")


def test_a_cached_evaluation_counts_only_while_its_rows_are_there(inputs):
    evaluated = evaluated_run(*inputs)
    blob = VerifiedJSON().dumps(evaluated)
    assert VerifiedJSON().loads(blob) == evaluated
    with database() as connection:
        connection.execute("DELETE FROM runs WHERE run_id = ?", [evaluated.run_ids[0]])
    with pytest.raises(MissingArtifact):
        VerifiedJSON().loads(blob)
    evaluated_run(*inputs)
    evaluated.verify()
    with database() as connection:
        connection.execute("DROP TABLE contrasts CASCADE")
    with pytest.raises(MissingArtifact, match="contrasts"):
        evaluated.verify()
    database_path().unlink()
    with pytest.raises(MissingArtifact, match="is gone"):
        evaluated.verify()


def test_inputs_make_a_cache_key(inputs):
    names = ("pipeline", "splits", "trained", "described", "items")
    key = cache_key("evaluation", 1, dict(zip(names, inputs, strict=True)))
    assert key == cache_key("evaluation", 1, dict(zip(names, inputs, strict=True)))
    changed = toy_runs.described(provenance="leaky")
    assert key != cache_key(
        "evaluation", 1, dict(zip(names, [*inputs[:3], changed, inputs[4]], strict=True))
    )


def test_a_failure_leaves_nothing_behind(inputs):
    evaluated_run(*inputs)
    before = everything()
    nobody = pa.table(
        {
            name: pa.nulls(1, field.type)
            for name, field in zip(LLM_CALLS.names, LLM_CALLS, strict=True)
        }
    )
    inputs[0] = toy_runs.pipeline(experiment="broken")
    inputs[3] = toy_runs.described(calls=write_parquet("calls", nobody))
    with pytest.raises(duckdb.ConstraintException):
        evaluated_run(*inputs)
    assert everything() == before


HOLD_DATABASE = """
import duckdb, sys
with duckdb.connect(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_busy_database_is_waited_for(inputs, data_dir):
    data_dir.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLD_DATABASE, str(database_path())]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    release = threading.Timer(0.5, holder.stdin.close)
    release.start()
    evaluated = evaluated_run(*inputs)
    assert release.finished.is_set()
    assert holder.wait(600) == 0
    evaluated.verify()


def test_nobody_to_score_is_said():
    rankings = pa.table({"split": ["test"], "user_id": ["u9"], "items": [["i1"]]})
    held = pa.table({"user_id": ["u1"], "item_id": ["i1"]})
    with pytest.raises(BadInput, match="no user has both test interactions and a ranking"):
        score(rankings, held, "test", Evaluation())


def test_scoring_does_not_depend_on_row_order():
    generator = np.random.default_rng(0)
    users = [f"u{n}" for n in range(30)]
    lists = [
        [f"i{n}" for n in generator.permutation(40)[: generator.integers(0, 25)]] for _ in users
    ]
    rankings = pa.table({"split": ["test"] * 30, "user_id": users, "items": lists})
    held = pa.table(
        {
            "user_id": [f"u{n}" for n in generator.integers(25, size=200)],
            "item_id": [f"i{n}" for n in generator.integers(40, size=200)],
        }
    )
    expected = score(rankings, held, "test", Evaluation())
    for _ in range(3):
        shuffled = score(
            rankings.take(generator.permutation(30)),
            held.take(generator.permutation(200)),
            "test",
            Evaluation(),
        )
        assert shuffled.users.tolist() == expected.users.tolist()
        for metric, values in expected.values.items():
            np.testing.assert_array_equal(shuffled.values[metric], values)
    # Worked plainly for one metric.
    relevant = {tuple(pair.values()) for pair in held.to_pylist()}
    by_hand = [
        sum((user, item) in relevant for item in lists[users.index(user)][:10])
        / sum(owner == user for owner, _ in relevant)
        for user in expected.users
    ]
    np.testing.assert_allclose(expected.values["recall", 10], by_hand)


def test_the_documentation_names_every_column(inputs):
    evaluated_run(*inputs)
    reference = (PROJECT_ROOT / "docs" / "reference" / "database.md").read_text()
    parts = re.split(r"^## Table `(\w+)`", reference, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    of_runs = ("runs", "metrics", "user_metrics", "epochs", "slices")
    for table in (*of_runs, "contrasts", "points", "trials"):
        columns = {name for name, *_ in query(f"DESCRIBE {table}")}
        first_cells = re.findall(r"^\| (`.*?) \|", sections[table], flags=re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == columns
    readme = (PROJECT_ROOT / "data" / "README.md").read_text()
    known = set(re.findall(r"`(\w+)`", readme.partition("## `artifacts/`")[2]))
    tables = (INTERACTIONS, ITEMS, PROFILES, LLM_CALLS, RANKINGS, vectors("embedding", 2))
    assert {name for table in tables for name in table.names} <= known
