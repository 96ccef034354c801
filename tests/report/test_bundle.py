"""`llmkt bundle` and `llmkt verify`: what a third party can compute again, and what it finds."""

import hashlib
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.logging import disable_run_logger
from typer.testing import CliRunner

from flows.cli.main import app
from models.profiles.provenance import record
from models.schemas import PROFILES
from tasks.embeddings.outputs import Described
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support import toy_runs

SECRET = "likes long films about trains"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """BPR with a control beside EASE, with profiles of two users that carry their records."""
    folder = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch, disable_run_logger():
        patch.setenv("LLMKT_DATA_DIR", str(folder / "data"))
        config, parts = toy_runs.configured("tiny"), toy_runs.splits()
        seen = record(read_parquet(parts.train)).to_pylist()
        rows = [row | {"text": SECRET, "profile_key": row["user_id"]} for row in seen]
        profiles = write_parquet("profiles", pa.Table.from_pylist(rows, schema=PROFILES))
        known = toy_runs.profiled(profiles=profiles)
        users = Described(side="users", profiled=known, embedded=toy_runs.embedded())
        made = toy_runs.all_ranked(config)
        toy_runs.evaluated_run(config, parts, made, [users], toy_runs.catalogue())
        done = CliRunner().invoke(app, ["bundle", "tiny", "-o", str(folder / "tiny.zip")])
        assert done.exit_code == 0, done.output
    return folder / "tiny.zip"


def checked(bundle, code=0):
    """The findings as they are printed: sentence by sentence."""
    done = CliRunner().invoke(app, ["verify", str(bundle)])
    assert done.exit_code == code, done.output
    return done.output if code == 2 else done.stdout


def forged(bundle, name, change):
    """A bundle in which a table was changed, and the manifest with it."""
    with zipfile.ZipFile(bundle) as archive:
        content = {each: archive.read(each) for each in archive.namelist()}
    (path,) = [each for each in content if each.startswith(name)]
    stream = io.BytesIO()
    pq.write_table(change(pq.read_table(io.BytesIO(content[path]))), stream)
    content[path] = stream.getvalue()
    manifest = json.loads(content["manifest.json"])
    manifest[path] = hashlib.sha256(content[path]).hexdigest()
    content["manifest.json"] = json.dumps(manifest).encode()
    other = bundle.with_name("forged.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for each, held in content.items():
            archive.writestr(each, held)
    return other


def test_everything_follows_from_what_is_in_it(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path))  # nothing but the bundle is there
    lines = checked(bundle).splitlines()
    assert all(line.startswith("holds: ") for line in lines)
    assert sum("users' metrics" in line for line in lines) == 8
    assert (
        "holds: profiles of users: 2 records of what they saw, against the training part" in lines
    )
    assert any("differences, intervals and verdicts" in line for line in lines)


def test_texts_are_in_it_only_by_choice(bundle, monkeypatch, tmp_path):
    def held(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (profiles,) = [each for each in names if each.startswith("artifacts/profiles")]
            return names, pq.read_table(io.BytesIO(archive.read(profiles)))["text"].to_pylist()

    names, texts = held(bundle)
    assert texts == [hashlib.sha256(SECRET.encode()).hexdigest()] * 2
    assert {"requirements.lock", "results/runs.parquet"} < {*names}
    assert any(name.startswith("prompts/") for name in names)
    monkeypatch.setenv("LLMKT_DATA_DIR", str(bundle.parent / "data"))
    whole = tmp_path / "whole.zip"
    assert CliRunner().invoke(app, ["bundle", "tiny", "-o", str(whole), "--texts"]).exit_code == 0
    assert held(whole)[1] == [SECRET] * 2
    assert "BROKEN" not in checked(whole)


def plus(column, change):
    def changed(table):
        place, values = table.column_names.index(column), table[column].to_pylist()
        return table.set_column(place, table.schema.field(place), [change(values)])

    return changed


def test_a_changed_value_is_found_in_metrics_and_in_verdicts(bundle):
    first = plus("value", lambda values: [0.123, *values[1:]])
    said = checked(forged(bundle, "results/user_metrics", first), code=1)
    assert "users' metrics. " in said
    assert "not 0.123000; 1 users differ" in said


def test_a_changed_verdict_is_found(bundle):
    better = plus("verdict", lambda values: ["better" if v != "better" else v for v in values])
    said = checked(forged(bundle, "results/contrasts", better), code=1)
    assert "verdict of BPR" in said
    assert ", not better" in said


def test_another_split_is_found(bundle):
    with zipfile.ZipFile(bundle) as archive:
        runs = pq.read_table(io.BytesIO(archive.read("results/runs.parquet"))).to_pylist()
    train = json.loads(runs[0]["artifacts"])["train"]
    said = checked(forged(bundle, train, plus("item_id", lambda ids: ["i8", *ids[1:]])), code=1)
    assert "BROKEN: split" in said
    assert "it is another" in said
    assert "BROKEN: profiles of users" in said


def test_a_record_of_another_history_is_no_certificate(bundle):
    other = plus("history_sha256", lambda digests: ["0" * 64, *digests[1:]])
    said = checked(forged(bundle, "artifacts/profiles", other), code=1)
    assert "BROKEN: profiles of users: 2 records of what they saw" in said
    assert "unknown, the runs say train-only" in said


def test_a_damaged_bundle_is_one_sentence(bundle, tmp_path):
    file = tmp_path / "cut.zip"
    file.write_bytes(bundle.read_bytes()[:-100])
    assert "no bundle, or damaged" in " ".join(checked(file, code=2).split())
    file.write_bytes(b"hello")
    assert "no bundle, or damaged" in " ".join(checked(file, code=2).split())
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(file, "w") as other:
        for name in archive.namelist():
            changed = b" " if name == "requirements.lock" else b""
            other.writestr(name, archive.read(name) + changed)
    said = " ".join(checked(file, code=2).split())
    assert "requirements.lock is not what the manifest says. Fetch it again." in said
