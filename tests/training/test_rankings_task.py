"""Rankings that were made elsewhere: formats, faults, and their place beside trained models."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.logging import disable_run_logger

from models.config import Job
from models.errors import BadInput
from tasks.results.queries import reading, select
from tasks.storage.artifacts import read_parquet, write_file
from tasks.training.rankings_task import ranking_files, rankings
from tests.support import toy_runs

GOOD = [("u1", "i1", 3), ("u1", "i5", 2), ("u2", "i3", 9), ("u2", "i1", 1)]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "data"))
    with disable_run_logger():
        yield


def trec(rows) -> str:
    return "".join(f"{user} Q0 {item} 1 {score} theirs\n" for user, item, score in rows)


def configured(folder, **training):
    return toy_runs.pipeline(
        models={"BPR": {}, "theirs": {"rankings": str(folder / "*.trec")}},
        training={**toy_runs.TRAINING, "arms": ["baseline", "transfer"], **training},
        evaluation={"metrics": ["recall"], "k": [1, 2], "primary": "recall@2"},
    )


def check(folder, content, seed=1):
    """Run the stage on a text, or on the columns of a Parquet file."""
    file = folder / "theirs.run"
    if isinstance(content, str):
        file.write_text(content)
    else:
        pq.write_table(pa.table(content), file)
    job = Job.of(configured(folder), "theirs", "baseline", seed, {})
    parts, kept = toy_runs.splits(), write_file("raw", ".run", file)
    items = toy_runs.catalogue()
    return rankings.fn(job, "theirs.run", kept, parts, items)


LISTS = {"user_id": ["u2", "u1"], "items": [["i3", "i1"], ["i1", "i5", "i2"]]}
ITEMS = {
    "user_id": ["u1", "u1", "u1", "u2", "u2"],
    "item_id": ["i2", "i5", "i1", "i3", "i1"],
    "score": [0.1, 0.5, 0.9, -1, -2],
}


@pytest.mark.parametrize("content", [trec(GOOD), LISTS, ITEMS], ids=["trec", "lists", "items"])
def test_every_format_is_ranked_and_cut_at_k(tmp_path, content):
    found = check(tmp_path, content)
    lists = {row["user_id"]: row["items"] for row in read_parquet(found.rankings).to_pylist()}
    assert lists == {"u1": ["i1", "i5"], "u2": ["i3", "i1"]}
    assert found.epochs == ()  # the validation part is not ranked


def test_a_ranked_validation_part_gives_the_score_that_chooses_a_reference(tmp_path):
    users = ["u1", "u2", "u1", "u2"]
    lists = [["i1", "i2"], ["i3", "i1"], ["i4", "i1"], ["i1", "i2"]]
    splits = ["test", "test", "valid", "valid"]
    found = check(tmp_path, {"user_id": users, "items": lists, "split": splits})
    assert found.epochs[0].valid_score == 1.0  # u1 alone holds out i4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (trec([*GOOD, ("u9", "i1", 1)]), r"row 5, user_id: u9 is not in the data set. Write"),
        (trec([*GOOD, ("u1", "i99", 1)]), r"row 5, item_id: i99 of user u1 is not in the cat"),
        (trec([*GOOD, ("u1", "i1", 1)]), r"row 5, item_id: i1 of user u1 stands twice"),
        (trec([*GOOD, ("u1", "i9", 1)]), r"row 5, item_id: i9 of user u1 is in the user's train"),
        (trec([*GOOD, ("u1", "i4", 1)]), r"row 5, item_id: i4 of user u1 is in the user's valid"),
        (trec(GOOD[:3]), r"row 3, user_id: u2 has 1 items on test, where evaluation.k needs 2"),
        (trec(GOOD[:2]), r"run, user_id: u2 has test interactions, but no ranking"),
        (trec([*GOOD, ("u1", "i2", "nan")]), r"row 5, score: nan of user u1 is no finite number"),
        (trec(GOOD) + "u1 i2\n", r"row 5, line: u1 i2 is no line of a TREC run: six values"),
        ("", r"user_id: u1 \(and 1 more\) has test interactions, but no ranking"),
        (
            {"user_id": ["u1", "u1"], "items": [["i1"], ["i5"]]},
            r"user_id: u1 \(and 1 more\) has more",
        ),
        ({**LISTS, "split": ["test", "dev"]}, r"row 2, split: dev \(and 2 more\) is no part that"),
        ({"user_id": ["u1"], "item": ["i1"]}, r"no column item_id, score; it has user_id, item"),
        ({**ITEMS, "score": ["a"] * 5}, r"a column holds values of the wrong kind"),
    ],
)
def test_a_fault_is_one_sentence_with_file_row_and_field(tmp_path, content, message):
    with pytest.raises(BadInput, match=message) as error:
        check(tmp_path, content)
    assert str(error.value).startswith("theirs.run")


def test_there_is_one_file_per_seed_in_the_order_of_their_numbers(tmp_path):
    for seed in (10, 9):
        (tmp_path / f"seed-{seed}.trec").write_text(trec(GOOD))
    found = ranking_files(configured(tmp_path))
    assert [each["where"].rpartition("-")[2] for each in found.values()] == ["9.trec", "10.trec"]
    with pytest.raises(BadInput, match=r"theirs.rankings: .* names 2 files, but the model has 3 s"):
        ranking_files(configured(tmp_path, seeds=[1, 2, 3]))


def test_rankings_stand_as_a_baseline(tmp_path):
    with pytest.raises(ValueError, match=r"rankings made elsewhere stand as a baseline. Add b"):
        toy_runs.pipeline(
            models={"BPR": {}, "theirs": {"rankings": str(tmp_path)}},
            training={**toy_runs.TRAINING, "arms": ["transfer"]},
        )
    (tmp_path / "folder.trec").mkdir()
    with pytest.raises(BadInput, match=r"names 0 files, but the model has 2 seeds"):
        ranking_files(configured(tmp_path))


def test_it_is_compared_like_a_trained_model_and_marked(tmp_path):
    config = configured(tmp_path)
    made = [
        toy_runs.trained(config, "BPR", arm, seed)
        for arm in ("baseline", "transfer")
        for seed in (1, 2)
    ]
    made += [check(tmp_path, trec(GOOD), seed) for seed in (1, 2)]
    data, items = toy_runs.splits(), toy_runs.catalogue()
    found = toy_runs.evaluated_run(config, data, made, toy_runs.described(), items)
    assert [each.sentence() for each in found.references] == [
        "theirs, trained elsewhere: Recall@2 0.7500 ± 0.0000"
    ]
    with reading() as connection:
        rows = select(connection, "FROM contrasts_all WHERE is_primary AND against = 'theirs'")
        (terms,) = select(
            connection,
            "SELECT DISTINCT epochs_budget, patience, valid_metric, search_trials FROM runs "
            "WHERE model = 'theirs'",
        )
        slices = select(connection, "FROM slices JOIN runs USING (run_id) WHERE model = 'theirs'")
    assert {row["arm"] for row in rows} == {"baseline", "transfer"}
    assert {row["verdict"] for row in rows} == {"exploratory"}
    assert all("theirs was trained elsewhere: its search" in row["warnings"] for row in rows)
    assert set(terms.values()) == {None}
    assert {row["kind"] for row in slices} == {"history", "popularity", "profile"}
