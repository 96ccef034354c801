"""What the results database says: contrasts, slices and two experiments."""

import io
import json
import re

import pyarrow as pa
import pytest
from rich.console import Console

from models.errors import BadInput
from models.report import wording
from models.schemas import PREDICTIONS
from tasks.results.cross_experiment import compare_experiments
from tasks.results.queries import comparison_rows, query, slice_rows
from tasks.results.tables import comparison_table, comparison_text
from tasks.storage.artifacts import write_parquet
from tests.support import toy_runs
from tests.support.toy_runs import TRAINING, evaluate, evaluate_grid

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def shown(rows, **options):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison_table(rows, **options))
    return re.sub(" +", " ", console.export_text())


def test_controls_and_references_stand_apart_from_the_baseline():
    evaluated = evaluate()
    assert {(row["model"], row["arm"]) for row in comparison_rows("tiny")} == {
        ("BPR", "transfer"),
        ("BPR", "shuffled"),
    }
    assert {row["against"] for row in comparison_rows("tiny", "baseline")} == {"baseline"}
    [row, *_] = comparison_rows("tiny", "shuffled")
    # The control ranks as the baseline does, so that the numbers are those of test_evaluation.
    assert (row["arm"], row["baseline_mean"], row["arm_mean"]) == ("transfer", 0.625, 1.0)
    assert row["p_value"] == pytest.approx(0.5)
    assert (row["claim"], row["p_adjusted"]) == ("B", None)
    assert row["verdict"] == "not tested: not above the baseline"
    everything = comparison_rows("tiny", "all")
    assert len(everything) == evaluated.n_contrasts == (2 + 1 + 2) * 4
    assert {row["against"] for row in everything} == {"baseline", "shuffled", "EASE"}
    assert {
        (row["arm"], row["against"])
        for row in everything
        if row["is_primary"] and row["against"] != "baseline"
    } == {
        ("transfer", "shuffled"),
        ("baseline", "EASE"),
        ("transfer", "EASE"),
    }
    with pytest.raises(
        BadInput,
        match=r"tiny: no comparison with 'noise'. Choose one of EASE, baseline, shuffled, ",
    ):
        comparison_rows("tiny", "noise")


def test_a_table_of_contrasts_names_the_other_arm():
    evaluate()
    text = shown(comparison_rows("tiny", "all"))
    assert "model arm against metric mean of the other mean of the arm gain" in text
    assert re.search(r"BPR transfer EASE Recall@2 1.0000 ± 0.0000 1.0000 ± 0.0000 \+0.0 %", text)
    assert "against" not in shown(comparison_rows("tiny"))


def test_baselines_alone_are_compared_with_references():
    config = toy_runs.pipeline(models={"BPR": {}, "EASE": {}})
    made = [
        toy_runs.trained(config, model, "baseline", seed)
        for model in config.models
        for seed in (1, 2)
    ]
    evaluate(trained=made, training=TRAINING | {"arms": ["baseline"]})
    assert {(row["arm"], row["against"]) for row in comparison_rows("tiny", "all")} == {
        ("baseline", "EASE")
    }
    for read in (comparison_rows, slice_rows):
        with pytest.raises(BadInput, match=r"no baseline with another arm .*--against all"):
            read("tiny")


def test_unequal_terms_are_marked_loudly():
    longer = toy_runs.pipeline(training={"epochs": 9, "valid_metric": "recall@2"})
    config = toy_runs.pipeline()
    made = [toy_runs.trained(config, "BPR", "baseline", seed) for seed in (1, 2)]
    made += [toy_runs.trained(longer, "BPR", "transfer", seed) for seed in (1, 2)]
    evaluate(trained=made, models={"BPR": {}})
    reason = "epoch budgets differ (baseline 4; arm 9)"
    rows = comparison_rows("tiny")
    assert {row["verdict"] for row in rows} == {f"not comparable: {reason}"}
    [note, *_] = wording.notes(rows)
    assert note == (f"Not on equal terms, so not compared: {reason}. It concerns BPR transfer.")
    assert note in shown(rows)
    assert note in comparison_text(rows, "md")


def test_an_import_path_leaves_room_for_figures():
    evaluate()
    path = "package.file:AlphaRec"
    rows = [row | {"model": path, "against": path} for row in comparison_rows("tiny")]
    for text in (shown(rows), comparison_text(rows, "md")):
        assert "AlphaRec" in text
        assert "package.file" not in text
    assert path in comparison_text(rows, "csv")


def test_slices_are_stored_and_compared_by_hand():
    evaluate()
    rows = query(
        "SELECT kind, slice, low, high, value, users FROM slices JOIN runs USING (run_id) WHERE "
        "model = 'BPR' AND arm = 'baseline' AND seed = 1 AND metric = 'recall' AND k = 2 "
        "ORDER BY ALL"
    )[1]
    # Both users have one training item, i9, which is the whole head; nobody holds it out.
    assert rows == [
        ("history", "1 coldest", 1, 1, 0.75, 2),
        ("popularity", "tail", 0, 0, 0.75, 2),
        ("profile", "without", None, None, 0.75, 2),
    ]
    of_slices = slice_rows("tiny")
    first = of_slices[0]
    assert (first["kind"], first["slice"], first["arm"]) == ("history", "1 coldest", "shuffled")
    [transfer] = [
        row
        for row in of_slices
        if (row["kind"], row["arm"], row["is_primary"]) == ("popularity", "transfer", True)
    ]
    whole = comparison_rows("tiny")[1]
    assert (transfer["ci_low"], transfer["p_value"]) == (whole["ci_low"], whole["p_value"])
    text = shown(of_slices)
    assert "BPR transfer popularity, tail (0 to 0) Recall@2" in text
    assert "BPR transfer profile, without Recall@2" in text


def test_predicted_likes_are_compared_and_sliced():
    likes = {"like_from": 4, "metrics": ["auc", "logloss"], "primary": "auc"}
    config = toy_runs.pipeline(
        models={"DeepFM": {}},
        evaluation=likes,
        training={"epochs": 4, "valid_metric": "auc", "seeds": [1, 2]},
    )

    def predicted(arm, seed):
        probability = [0.9, 0.4, 0.8, 0.2 if arm == "transfer" else 0.85]
        table = pa.table(
            [["u1", "u1", "u2", "u2"], list("abab"), [True, False] * 2, probability],
            schema=PREDICTIONS,
        )
        handle = write_parquet("predictions", table)
        made = toy_runs.trained(config, "DeepFM", arm, seed, toy_runs.RANKED[arm, seed])
        return made.model_copy(update={"rankings": handle, "predictions": handle})

    made = [predicted(arm, seed) for arm in ("baseline", "transfer") for seed in (1, 2)]
    evaluated = evaluate(
        trained=made,
        models={"DeepFM": {}},
        evaluation=likes,
        training={"epochs": 4, "valid_metric": "auc", "seeds": [1, 2]},
    )
    evaluated.verify()
    assert evaluated.n_slices == 4 * 2 * 2  # runs, slices, metrics
    rows = comparison_rows("tiny")
    # One of the four pairs of a like and a dislike is the wrong way round in the baseline.
    assert [(row["metric"], row["k"]) for row in rows] == [("auc", None), ("logloss", None)]
    assert (rows[0]["baseline_mean"], rows[0]["arm_mean"]) == (0.75, 1.0)
    assert rows[1]["effect_size"] > 0 > rows[1]["difference"]
    assert query("SELECT DISTINCT metric FROM metrics ORDER BY ALL")[1] == [("auc",), ("logloss",)]
    # Both users have one training item and no profile, so that each slice is everybody.
    of_slices = [row for row in slice_rows("tiny") if row["is_primary"]]
    assert [(row["kind"], row["slice"]) for row in of_slices] == [
        ("history", "1 coldest"),
        ("profile", "without"),
    ]
    assert {(row["baseline_mean"], row["arm_mean"]) for row in of_slices} == {(0.75, 1.0)}


def test_two_experiments_are_compared_arm_by_arm():
    evaluate("first")
    evaluate("second", transfer={"alpha": 0.9})
    rows = compare_experiments("first", "second")[0]
    assert {(row["experiment"], row["against"]) for row in rows} == {("first", "second")}
    arms = [(row["model"], row["arm"]) for row in rows if row["is_primary"]]
    assert arms == [
        ("BPR", "baseline"),
        ("BPR", "shuffled"),
        ("BPR", "transfer"),
        ("EASE", "baseline"),
    ]
    assert {row["difference"] for row in rows} == {0.0}
    assert rows[0]["dataset"] == "ml-100k"
    assert set(comparison_rows("first")[0]) == set(rows[0])
    json.loads(comparison_text(rows, "json"))
    assert "BPR transfer second Recall@2" in shown(rows)


def test_only_an_experiments_latest_runs_are_compared():
    evaluate("first")
    evaluate("first", transfer={"alpha": 0.9})
    evaluate("second")
    assert query("SELECT count(*) FROM runs WHERE experiment = 'first' AND NOT is_current")[1] == [
        (4,)
    ]
    of_arms = [row for row in compare_experiments("first", "second")[0] if row["is_primary"]]
    assert {row["seeds"] for row in of_arms} == {2}


def test_experiments_with_other_budgets_are_marked():
    evaluate("first")
    evaluate("second", training=TRAINING | {"epochs": 9})
    verdicts = {row["verdict"] for row in compare_experiments("first", "second")[0]}
    assert verdicts == {"not comparable: epoch budgets differ (second 9; arm 4)"}


def test_experiments_on_other_splits_or_data_are_refused():
    evaluate("first")
    whole = toy_runs.splits()
    evaluate("second", data=whole.model_copy(update={"train": whole.valid}), split={"seed": 7})
    with pytest.raises(
        BadInput,
        match=r"experiments first and second cannot be compared: split.seed \(first 2026; second "
        r"7\), split_digest \(first \w{16}; second \w{16}\)$",
    ):
        compare_experiments("first", "second")
    evaluate("third", dataset={"name": "other"})
    with pytest.raises(BadInput, match=r"dataset \(first ml-100k; third other\)$"):
        compare_experiments("first", "third")
    with pytest.raises(BadInput, match=r"no experiment 'fourth'\. Choose one of first, second"):
        compare_experiments("first", "fourth")


ALPHAS = {f"alpha={alpha}": {"transfer": {"alpha": alpha}} for alpha in (0.1, 0.2, 0.3)}


def primary_arms(rows):
    return [(row["point"], row["model"], row["arm"]) for row in rows if row["is_primary"]]


def test_experiments_with_points_are_compared_point_by_point():
    """Baselines and references are the same trainings at every point: they are compared once."""
    evaluate_grid("first", {name: ALPHAS[name] for name in ("alpha=0.1", "alpha=0.2")})
    evaluate_grid("second", {name: ALPHAS[name] for name in ("alpha=0.2", "alpha=0.3")})
    found, notes = compare_experiments("first", "second")
    assert primary_arms(found) == [
        ("alpha=0.2", "BPR", "baseline"),
        ("alpha=0.2", "BPR", "shuffled"),
        ("alpha=0.2", "BPR", "transfer"),
        ("alpha=0.2", "EASE", "baseline"),
    ]
    assert notes == ["only first has alpha=0.1", "only second has alpha=0.3"]
    assert {row["profile_source"] for row in found} == {None, "offline"}
    assert "alpha=0.2 BPR transfer second Recall@2" in shown(found)
    whole, notes = compare_experiments("first", "first")
    assert primary_arms(whole) == [
        (None, "BPR", "baseline"),
        ("alpha=0.1", "BPR", "shuffled"),
        ("alpha=0.1", "BPR", "transfer"),
        (None, "EASE", "baseline"),
        ("alpha=0.2", "BPR", "shuffled"),
        ("alpha=0.2", "BPR", "transfer"),
    ]
    assert notes == []


def test_an_experiment_without_points_is_compared_with_every_point():
    evaluate("plain")
    evaluate_grid("grid", {name: ALPHAS[name] for name in ("alpha=0.1", "alpha=0.2")})
    for one, other in (("plain", "grid"), ("grid", "plain")):
        found, notes = compare_experiments(one, other)
        points = {point for point, _, arm in primary_arms(found) if arm == "transfer"}
        assert points == {"alpha=0.1", "alpha=0.2"}
        assert {(row["experiment"], row["against"]) for row in found} == {(one, other)}
        assert notes == []


def test_experiments_that_share_no_point_or_split_are_refused():
    evaluate_grid("first", {"alpha=0.1": ALPHAS["alpha=0.1"]})
    evaluate_grid("second", {"alpha=0.2": ALPHAS["alpha=0.2"]})
    with pytest.raises(
        BadInput,
        match=r"no point in common \(only first has alpha=0.1; only second has alpha=0.2\)\. ",
    ):
        compare_experiments("first", "second")
    whole = toy_runs.splits()
    other = whole.model_copy(update={"train": whole.valid})
    seeded = {"alpha=0.1": ALPHAS["alpha=0.1"] | {"split": {"seed": 7}}}
    evaluate_grid("third", seeded, data=other)
    with pytest.raises(
        BadInput,
        match=r"cannot be compared at alpha=0.1: split.seed \(first 2026; third 7\)",
    ):
        compare_experiments("first", "third")
