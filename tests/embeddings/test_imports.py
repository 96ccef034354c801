"""Profiles and embeddings made elsewhere: every format, and one sentence per fault."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.config import Dataset, Embeddings, Profiles
from models.embeddings.text_batches import to_matrix
from models.errors import BadInput
from models.profiles.provenance import record
from models.schemas import PROFILES
from tasks.config.pipeline_file import load
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split, split_files
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.outputs import Described, origin
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import PROJECT_ROOT, read_parquet, write_parquet
from tasks.storage.imported_files import profile_file, vector_files
from tests.support.toy_world import catalogue, train

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

TRAIN = train(("007", "a", 5), ("7", "b", 3), ("ann", "a", 4), ("ann", "b", 2))
USERS = ["007", "7", "ann"]
TEXTS = {"ann": "Likes a,\nnot b.", "7": 'Says "b".', "007": "Bond."}
VECTORS = {"ann": [3.0, 3.5], "7": [2.0, 2.5], "007": [1.0, 1.5]}
MATRIX = [[1.0, 1.5], [2.0, 2.5], [3.0, 3.5]]


def imported(path, table=TRAIN, **settings):
    config = Profiles.model_validate({"provider": "import", "path": str(path)} | settings)
    handles = write_parquet("split", table), write_parquet("items", catalogue())
    done = profiles.fn(config, "", *handles, profile_file(config))
    return done, read_parquet(done.profiles)


def vectors(path, table=TRAIN, **settings):
    config = Embeddings.model_validate({"provider": "import", "path": str(path)} | settings)
    handle = write_parquet("split", table)
    done = embeddings.fn(config, None, handle, vector_files(config))
    found = read_parquet(done.embeddings)
    return done, found["user_id"].to_pylist(), to_matrix(found["embedding"]).tolist()


def written(folder, kind, rows=None, text="text"):
    """A file of profiles: rows of id and text."""
    rows = rows or list(TEXTS.items())
    records = [{"user_id": user, text: said} for user, said in rows]
    path = folder / f"mine.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif kind == "json":
        path.write_text(json.dumps(records))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        separator = {"csv": ",", "tsv": "\t"}[kind]
        quoted = [(user, '"' + said.replace('"', '""') + '"') for user, said in rows]
        lines = [("user_id", text), *quoted]
        path.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_profiles_come_in_every_format_by_raw_token(tmp_path, kind):
    done, table = imported(written(tmp_path, kind, text="summary"), columns={"text": "summary"})
    assert table.schema.remove_metadata() == PROFILES
    assert dict(zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True)) == TEXTS
    assert table["user_id"].to_pylist() == USERS
    assert (done.source, done.provenance, done.missing) == ("import", "unknown", 0)
    assert (done.llm_model, done.cost_usd) == (None, 0.0)
    assert read_parquet(done.calls).num_rows == 0


def test_profiles_may_be_a_mapping_and_ids_whole_numbers(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(TEXTS))
    assert imported(path)[1]["text"].to_pylist() == [TEXTS[user] for user in USERS]
    pq.write_table(pa.table({"user_id": [7, 8], "text": ["x", "y"]}), tmp_path / "n.parquet")
    table = train(("7", "a"), ("8", "a"))
    assert imported(tmp_path / "n.parquet", table)[1]["text"].to_pylist() == ["x", "y"]


def test_values_that_look_like_gaps_or_line_ends_are_values(tmp_path):
    table = train(("NA", "a"), ("null", "a"))
    path = written(tmp_path, "csv", [("NA", "None"), ("null", "NaN")])
    assert imported(path, table)[1]["text"].to_pylist() == ["None", "NaN"]
    path = tmp_path / "mine.jsonl"
    rows = [{"user_id": user, "text": "one\u2028two"} for user in ("NA", "null")]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert imported(path, table)[1]["text"].to_pylist() == ["one\u2028two"] * 2


def test_a_quote_that_never_closes_swallows_no_profiles(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('user_id,text\n007,"Bond.\n7,Says b.\nann,Likes a.\n')
    with pytest.raises(BadInput, match=r"mine\.csv, row 2: a quote opens and does not close"):
        imported(path)


def test_the_files_content_decides_and_not_its_path(tmp_path):
    first = written(tmp_path, "csv")
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(first.read_bytes())
    settings = [Profiles(provider="import", path=str(path)) for path in (first, moved)]
    assert settings[0].digest() == settings[1].digest()
    handles = [profile_file(config) for config in settings]
    assert handles[0] == handles[1]
    first.write_text(first.read_text().replace("Bond", "James Bond"))
    assert profile_file(settings[0]).sha256 != handles[1].sha256


def test_missing_and_blank_profiles_are_masked_with_their_reason(tmp_path):
    path = written(tmp_path, "csv", [("ann", "Likes a."), ("7", "  ")])
    with pytest.raises(BadInput, match=r"mine\.csv: 2 of 3 users \(66\.7%\).*007, 7; profiles\."):
        imported(path)
    done, table = imported(path, max_missing=0.7)
    assert done.missing == 2
    assert table["text"].to_pylist() == [None, None, "Likes a."]
    assert table["missing_reason"].to_pylist() == [
        "not in the imported file",
        "blank in the imported file",
        None,
    ]


def test_unknown_users_stop_unless_dropped(tmp_path):
    strangers = [(f"s{n}", "x") for n in range(12)]
    path = written(tmp_path, "csv", [*TEXTS.items(), *strangers])
    with pytest.raises(BadInput, match=r"12 of 15 user ids are not .*: s0, .*s9, …\. .*drop") as e:
        imported(path)
    assert "s10" not in str(e.value)
    table = imported(path, unknown_users="drop")[1]
    assert table["user_id"].to_pylist() == USERS


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_duplicate_users_are_named(tmp_path, kind):
    path = written(tmp_path, kind, [*TEXTS.items(), ("7", "again"), ("ann", "again")])
    with pytest.raises(BadInput, match=r"2 of 3 user ids occur more than once: ann, 7. Keep"):
        imported(path)
    path = tmp_path / "map.json"
    path.write_text('{"ann": "x", "7": "y", "ann": "z", "007": "w"}')
    with pytest.raises(BadInput, match=r"1 of 3 user ids occur more than once: ann"):
        imported(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "user,text\n1,x\n",
            r"user_id; it has user, text\. Set profiles\.columns",
        ),
        (
            "a.csv",
            "user_id,summary\n1,x\n",
            r"text; it has user_id, summary\. .*\.columns",
        ),
        ("a.csv", "user_id,text\n7,x\n1,2,3\n", r"a\.csv, row 3: 3 values instead of 2\. Mend"),
        ("a.csv", "user_id,text\n7,x\n,y\n", r"row 2: the user id is empty"),
        ("a.jsonl", '{"user_id": 7, "text": "x"}\n{"user\n', r"a\.jsonl, line 2 is not valid JSON"),
        ("a.json", '[{"user_id": 1.5, "text": "x"}]', r"row 1: the id 1\.5 is no text"),
        ("a.json", "[1, 2]", r"must hold a mapping of ids, or a list"),
        ("a.parquet", "nonsense", r"a\.parquet is no Parquet file"),
        ("a.xlsx", "", r"profiles\.path: .*a\.xlsx is not \.csv, .* or \.parquet"),
    ],
)
def test_faulty_profile_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BadInput, match=message):
        imported(path, max_missing=1)


def test_a_file_that_is_not_there_and_half_a_configuration_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"profiles\.path: .*none\.csv does not exist"):
        imported(tmp_path / "none.csv")
    for section in (Profiles, Embeddings):
        with pytest.raises(ValueError, match="provider import and path belong together"):
            section(provider="import")
        with pytest.raises(ValueError, match="provider import and path belong together"):
            section(path="x.csv")


def recorded(table):
    """The true record of the histories in `table`, with a text for everyone."""
    return record(table).append_column("text", pa.array(["x"] * len(USERS)))


def test_provenance_follows_the_files_record(tmp_path):
    path = tmp_path / "r.parquet"
    pq.write_table(recorded(TRAIN), path)
    assert imported(path)[0].provenance == "train-only"
    with_test = pa.concat_tables([TRAIN, train(("7", "held-out", 5))])
    pq.write_table(recorded(with_test), path)
    assert imported(path)[0].provenance == "unknown"
    # Of the configured share of the history, too.
    shortened = train(("007", "a", 5), ("7", "b", 3), ("ann", "a", 4))
    pq.write_table(recorded(shortened), path)
    assert imported(path)[0].provenance == "unknown"
    assert imported(path, history={"limit": 1, "order": "best"})[0].provenance == "train-only"


# Embeddings


def saved(folder, kind, ids=None, rows=None):
    """A file of vectors."""
    ids, rows = ids or list(VECTORS), rows or list(VECTORS.values())
    path = folder / f"user_embs.{kind.split('-')[0]}"
    if kind == "npy":
        np.save(path, np.array(rows))
        (folder / "user_embs.ids.txt").write_text("\n".join(ids) + "\n")
    elif kind == "pt-mapping":
        pairs = zip(ids, rows, strict=True)
        torch.save({user: torch.tensor(row) for user, row in pairs}, path)
    elif kind == "pt-pair":
        torch.save({"ids": ids, "embeddings": torch.tensor(rows, dtype=torch.bfloat16)}, path)
    elif kind == "pt-ids":
        torch.save(torch.tensor(rows), path)
        (folder / "user_embs.ids.json").write_text(json.dumps(ids))
    elif kind == "json":
        pairs = (f"{json.dumps(u)}: {json.dumps(r)}" for u, r in zip(ids, rows, strict=True))
        path.write_text("{" + ", ".join(pairs) + "}")
    elif kind == "json-list":
        pairs = zip(ids, rows, strict=True)
        path.write_text(json.dumps([{"user_id": u, "embedding": r} for u, r in pairs]))
    else:
        pq.write_table(pa.table({"user_id": ids, "embedding": rows}), path)
    return path


KINDS = ["npy", "pt-mapping", "pt-pair", "pt-ids", "json", "json-list", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_come_in_every_format_by_raw_token(tmp_path, kind):
    done, users, matrix = vectors(saved(tmp_path, kind))
    assert (users, matrix) == (USERS, MATRIX)
    assert (done.width, done.missing, done.provenance) == (2, 0, "unknown")
    described = [Described(side="users", profiled=None, embedded=done)]
    assert origin(described) == {
        "profile_source": "import",
        "profile_provenance": "unknown",
        "warnings": None,
    }


def test_a_parquet_of_vectors_may_carry_the_record(tmp_path):
    path = tmp_path / "v.parquet"
    fixed = pa.array(MATRIX, pa.list_(pa.float32(), 2))
    pq.write_table(record(TRAIN).append_column("embedding", fixed), path)
    assert vectors(path)[0].provenance == "train-only"
    changed = pa.concat_tables([TRAIN, train(("7", "held-out", 5))])
    pq.write_table(record(changed).append_column("embedding", fixed), path)
    assert vectors(path)[0].provenance == "unknown"


@pytest.mark.parametrize("kind", ["json", "parquet", "pt-mapping"])
def test_vectors_of_mixed_width_are_refused_with_their_row(tmp_path, kind):
    path = saved(tmp_path, kind, rows=[[1.0, 2.0], [1.0], [1.0, 2.0]])
    with pytest.raises(BadInput, match=r"row 2 \(user 7\): the vector has width 1, others have 2"):
        vectors(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_row(tmp_path, kind, value):
    path = saved(tmp_path, kind, rows=[[1.0, 2.0], [1.0, 2.0], [value, 2.0]])
    with pytest.raises(BadInput, match=r"row 3 \(user 007\): .*NaN or infinite.* 1 of 3 vectors"):
        vectors(path)


@pytest.mark.parametrize("kind", KINDS[:1] + KINDS[2:])
def test_vector_ids_are_checked(tmp_path, kind):
    path = saved(tmp_path, kind, ids=["ann", "ann", "7"])
    with pytest.raises(BadInput, match=r"1 of 2 user ids occur more than once: ann"):
        vectors(path)
    path = saved(tmp_path, kind, ids=["ann", "7", "0007"])
    with pytest.raises(BadInput, match=r"1 of 3 user ids are not in .*: 0007\..*embeddings\.unkn"):
        vectors(path)
    with pytest.raises(BadInput, match=r"1 of 3 users \(33\.3%\).*: 007; embeddings\.max_missing"):
        vectors(path, unknown_users="drop")
    done, users, matrix = vectors(path, unknown_users="drop", max_missing=0.5)
    assert (users, matrix, done.missing) == (["7", "ann"], [[2.0, 2.5], [3.0, 3.5]], 1)


def test_a_matrix_needs_its_ids(tmp_path):
    np.save(tmp_path / "m.npy", np.array(MATRIX))
    with pytest.raises(BadInput, match=r"neither m\.ids\.txt nor m\.ids\.json"):
        vectors(tmp_path / "m.npy")
    ids = tmp_path / "list.txt"
    ids.write_text("007\n7\n")
    with pytest.raises(BadInput, match="holds 3 vectors, but there are 2 ids"):
        vectors(tmp_path / "m.npy", ids=str(ids))
    torch.save(torch.tensor(MATRIX), tmp_path / "m.pt")
    with pytest.raises(BadInput, match=r"holds no ids\. Save"):
        vectors(tmp_path / "m.pt")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_would_execute_something_are_refused(tmp_path, capsys):
    torch.save({"ann": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match=r"evil\.pt could not be read"):
        vectors(tmp_path / "evil.pt")
    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object))
    (tmp_path / "evil.ids.txt").write_text("ann")
    with pytest.raises(BadInput, match=r"evil\.npy could not be read"):
        vectors(tmp_path / "evil.npy")
    assert "executed" not in capsys.readouterr().out


SHARED = Path(os.environ.get("LLMKT_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
GPT = {
    "profiles": SHARED / "ml-100k-gpt-profiles.csv",
    "train": SHARED / "ml-100k-u1-base.tsv",
    "test": SHARED / "ml-100k-u1-test.tsv",
}


@pytest.mark.shared_data
@pytest.mark.skipif(
    not all(file.is_file() for file in GPT.values()),
    reason=f"the GPT profiles of ml-100k and their u1 split are not in {SHARED} "
    "(LLMKT_SHARED_DATA names another folder)",
)
def test_gpt_profiles_go_through_import_with_their_split():
    overrides = [f"profiles.path={GPT['profiles']}"]
    overrides += [f"split.{part}={GPT[part]}" for part in ("train", "test")]
    pipeline = load(PROJECT_ROOT / "configs" / "ml-100k-gpt.yaml", overrides)
    data = interactions.fn(Dataset(), raw_files(Dataset()))
    parts = split.fn(pipeline.split, data.interactions, split_files(pipeline.split))
    assert (parts.train.rows + parts.valid.rows, parts.test.rows) == (80_000, 20_000)
    config = pipeline.profiles
    done = profiles.fn(config, "", parts.train, data.items, profile_file(config))
    table = read_parquet(done.profiles)
    assert (table.num_rows, done.missing, done.provenance) == (943, 0, "unknown")
    first = table["text"][table["user_id"].to_pylist().index("1")].as_py()
    assert first.startswith("The user enjoys films that blend elements of comedy and romance")
