"""A data folder in a store: the same results, shared by machines that share nothing else."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from flows.knowledge_transfer import knowledge_transfer
from flows.steps.comparison import Summary
from models.config import Pipeline
from models.errors import BadInput
from tasks.config.pipeline_file import load
from tasks.llm import answer_sync
from tasks.llm.answer_store import Answer, Question, answer_store
from tasks.llm.batch_ledger import open_submissions, prepare
from tasks.publishing.manifest import current, versions
from tasks.publishing.recommendation_lookup import recommended
from tasks.publishing.versions import Overtaken, prune, rollback
from tasks.report.report_task import find_report
from tasks.results.database import database
from tasks.storage.artifacts import (
    MissingArtifact,
    read_parquet,
    require_writable,
    write_bytes,
    write_file,
    write_parquet,
)
from tasks.storage.data_dir import data_dir
from tasks.storage.garbage_collection import sweep
from tasks.storage.object_store import Store, store
from tasks.storage.prefect_results import ResultObjects
from tests.publishing.test_publishing_task import release
from tests.support.fake_llm import config, run, texts
from tests.support.toy_project import CONFIG, World, no_workers
from tests.support.toy_world import MEDIUM

pytest_plugins = ("tests.support.s3_server", "tests.support.fake_llm", "tests.support.toy_project")


def numbers(*values: int):
    return write_parquet("numbers", pa.table({"n": list(values)}))


def test_what_one_machine_writes_another_one_reads(s3, move):
    move("one", s3.url("shared"))
    handle = numbers(1, 2)
    assert s3.keys("shared") == [handle.path]
    move("other", s3.url("shared"))
    assert not handle.file.exists()
    assert read_parquet(handle)["n"].to_pylist() == [1, 2]
    assert handle.file.is_file()


def test_an_artifact_that_was_altered_or_removed_in_the_store_is_missing(s3, move):
    move("one", s3.url("harmed"))
    altered, removed = write_bytes("weights", ".bin", b"abc"), numbers(3)
    s3.put("harmed", altered.path, b"abd")
    s3.delete("harmed", removed.path)
    move("other", s3.url("harmed"))
    with pytest.raises(MissingArtifact, match=r"s3://.* was altered"):
        altered.verify()
    with pytest.raises(MissingArtifact, match=r"s3://.* is gone"):
        removed.verify()
    assert not altered.file.exists()
    assert write_bytes("weights", ".bin", b"abc") == altered
    assert s3.get("harmed", altered.path) == b"abc"


def test_what_only_one_machine_has_left_returns_to_the_store(s3, move, tmp_path):
    source = tmp_path / "raw.csv"
    source.write_text("a,b\n1,2\n")
    move("one", s3.url("before"))
    handle = write_file("raw", ".csv", source)
    move("one", s3.url("after"))
    assert s3.keys("after") == []
    assert write_file("raw", ".csv", source) == handle
    assert s3.keys("after") == [handle.path]


def test_the_database_follows_from_machine_to_machine(s3, move):
    move("one", s3.url("rows"))
    with pytest.raises(BadInput, match="does not exist"), database(read_only=True):
        pass
    with database() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    move("other", s3.url("rows"))
    with database() as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    move("one", s3.url("rows"))
    with database(read_only=True) as connection:
        assert connection.sql("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (2,)]


def test_a_database_that_was_here_before_the_store_is_put_aside(s3, move):
    move("one", s3.url("full"))
    with database() as connection:
        connection.execute("CREATE TABLE t AS SELECT 'store' AS n")
    move("other", s3.url("empty"))
    with database() as connection:
        connection.execute("CREATE TABLE mine AS SELECT 'here' AS n")
    (data_dir() / ".results.duckdb.seen").unlink()
    move("other", s3.url("full"))
    with database(read_only=True) as connection:
        assert connection.sql("SELECT n FROM t").fetchall() == [("store",)]
    (aside,) = data_dir().glob("results.duckdb.before-*")
    with duckdb.connect(str(aside), read_only=True) as connection:
        assert connection.sql("SELECT n FROM mine").fetchall() == [("here",)]


@pytest.mark.usefixtures("no_run_logger")
def test_an_answer_is_paid_for_once_on_all_machines(s3, move, llm):
    move("one", s3.url("answers"))
    first = run(config(llm), "Heat", "Alien")
    assert (first.answers_paid, first.answers_cached) == (2, 0)
    move("other", s3.url("answers"))
    second = run(config(llm), "Heat", "Alien", "Fargo")
    assert (second.answers_paid, second.answers_cached) == (1, 2)
    assert texts(second).items() >= texts(first).items()
    move("one", s3.url("answers"))
    assert run(config(llm), "Fargo").answers_cached == 1
    assert llm.titles() == {"Heat": 1, "Alien": 1, "Fargo": 1}


def an_answer(text: str | None, minute: int) -> Answer:
    return Answer(text, 10, 4, 0.5, datetime(2026, 1, 2, 3, minute, tzinfo=UTC))


def test_answers_are_in_the_store_before_the_run_ends_and_a_store_that_fails_costs_none(
    move, tmp_path, monkeypatch
):
    url = f"file://{tmp_path}/share"
    monkeypatch.setattr(answer_sync, "_SECONDS", 0.0)

    def refuse(*_: object) -> None:
        raise BadInput("down")

    move("one", url)
    with answer_store() as answers:
        answers.put("a", "openai", "tiny", an_answer("early", 1), 0.1)
        move("other", url)
        with answer_store() as others:
            assert others.knows(["a"])
        move("one", url)
        with monkeypatch.context() as broken:
            broken.setattr(Store, "write", refuse)
            answers.put("b", "openai", "tiny", an_answer("late", 2), 0.1)
    move("other", url)
    with answer_store() as others:
        assert others.knows(["a", "b"])


def test_a_newer_answer_replaces_an_older_one_and_an_unusable_one_none(move, tmp_path):
    url = f"file://{tmp_path}/share"
    for machine, text, minute in (("one", "old", 1), ("two", "new", 2), ("three", None, 3)):
        move(machine, f"{url}/{machine}")
        with answer_store() as answers:
            answers.put("a", "openai", "tiny", an_answer(text, minute), 0.1)
        shutil.copytree(tmp_path / "share" / machine, tmp_path / "share", dirs_exist_ok=True)
    move("reader", url)
    with answer_store() as answers:
        answers.want([Question("a", [{"role": "user", "content": "?"}])])
        assert answers.texts() == {"a": "new"}


def test_a_batch_that_one_machine_submitted_another_one_collects(move, tmp_path):
    url = f"file://{tmp_path}/share"
    move("one", url)
    prepare("endpoint", [{"custom_id": "key", "body": {}}]).created("batch-1")
    move("other", url)
    [found] = open_submissions("endpoint")
    assert (found.batch_id, found.keys) == ("batch-1", {"key"})
    assert found.requests.is_file()
    found.close()
    move("third", url)
    assert list(open_submissions("endpoint")) == []


def test_housekeeping_sweeps_the_store_and_the_copies(move, tmp_path):
    move("one", f"file://{tmp_path}/share")
    needed, forgotten = numbers(1), numbers(2)
    ResultObjects().write_path(f"split-v1-{1:032x}", needed.model_dump_json().encode())
    ResultObjects().write_path(f"split-v1-{2:032x}", forgotten.model_dump_json().encode())
    old = time.time() - 40 * 24 * 60 * 60
    for root in (tmp_path / "share", data_dir()):
        for path in root.rglob("*"):
            if path.name != f"split-v1-{1:032x}":
                os.utime(path, (old, old))
    for dry_run in (True, False):
        swept = sweep(keep_days=30, keep_count=0, dry_run=dry_run)
        paths = [removal.path for removal in swept.removed]
        assert paths == [f"cache/split-v1-{2:032x}", forgotten.path, forgotten.path]
    remote = store()
    assert remote is not None
    assert [entry.name for entry in remote.entries("artifacts")] == [needed.path]
    assert needed.file.exists()
    assert not forgotten.file.exists()


def test_what_is_published_counts_on_every_machine(s3, move):
    def on(machine: str) -> str | None:
        move(machine, s3.url("nights"))
        now = current("tiny")
        return now.version if now else None

    assert on("one") is None
    release("1", None)
    assert on("reader") == "1"
    assert [row.item_id for row in recommended("tiny", "a").items] == ["i1", "i2"]
    assert on("one") == "1"
    release("2", "1")
    assert on("reader") == "2"
    assert recommended("tiny", "a").items[0].score == 2.0
    rollback("tiny")
    assert on("one") == "1"
    release("3", "1")
    assert prune("tiny", keep=2) == ["2"]
    kept = {name.split("/")[2] for name in s3.keys("nights") if name.startswith("published/")}
    assert kept == {"current", "1", "3"}
    assert on("yet another") == "3"
    assert [kept.version for kept in versions("tiny")] == ["3", "1"]


def publish_all(machine: str, url: str, numbers: list[str]) -> list[str]:
    """Publish versions from a machine, each over what is current; those that came first."""
    os.environ.update(LLMKT_LOCAL_DIR=machine, LLMKT_DATA_DIR=url)
    done = []
    for number in numbers:
        now = current("tiny")
        with suppress(Overtaken):
            release(number, now.version if now else None)
            done.append(number)
    return done


@pytest.mark.slow
def test_two_machines_that_publish_at_once_never_show_a_mixture(s3, move, tmp_path):
    """What a third machine reads is whole at every moment, and the last version at the end."""
    url, published = s3.url("nights"), (["1", "3", "5", "7"], ["2", "4", "6", "8"])
    move("reader", url)
    seen = set()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        machines = [str(tmp_path / name) for name in ("one", "two")]
        running = [
            pool.submit(publish_all, machine, url, numbers)
            for machine, numbers in zip(machines, published, strict=True)
        ]
        while not all(one.done() for one in running):
            now = current("tiny")
            if now is not None:
                now.verify()
                seen.add(now.version)
    done = {number for one in running for number in one.result()}
    now = current("tiny")
    assert now is not None
    assert recommended("tiny", "a").items[0].score == float(now.version)
    assert now.version in done
    assert seen <= done


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket-here/x", "s3://no-such-bucket-here/x: there is no such bucket"),
        ("gs://bucket/x", "gs://bucket/x: a package for gs:// is missing .*gcsfs"),
        ("nonsense://bucket/x", "Protocol not known: nonsense"),
        ("s3://KEYID:se/cret@bucket/x", r"s3://…@bucket/x .* Leave credentials .* environment"),
        ("s3://bucket/x?token=secret", "s3://bucket/x .* Leave credentials"),
        ("s3://", "names no bucket"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_in_one_sentence(s3, move, url, said):
    assert s3
    move("one", url)
    with pytest.raises(BadInput, match=said) as refused:
        require_writable()
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["memory://shared/x", "file://{}/share"])
def test_any_other_protocol_of_fsspec_will_do(move, tmp_path, url):
    move("one", url.format(tmp_path))
    require_writable()
    handle = numbers(1, 2)
    move("other", url.format(tmp_path))
    assert read_parquet(handle)["n"].to_pylist() == [1, 2]
    remote = store()
    assert remote is not None
    assert [(entry.name, entry.bytes) for entry in remote.entries("artifacts")] == [
        (handle.path, handle.file.stat().st_size)
    ]
    assert all(entry.changed > 1.7e9 for entry in remote.entries("artifacts"))
    remote.remove([handle.path, "artifacts/never/was.there"])
    assert remote.entries("artifacts") == []


@pytest.fixture
def small(tmp_path) -> Iterator[Pipeline]:
    """One model and one seed."""
    MEDIUM.write(tmp_path)
    text = "\n".join(line for line in CONFIG.splitlines() if "MultiVAE" not in line)
    config = tmp_path / "small.yaml"
    config.write_text(text.format(folder=tmp_path))
    with no_workers():
        yield load(config, ["training.seeds=[1]"])


def digests(folder: Path) -> set[str]:
    return {path.name for path in (folder / "artifacts").rglob("*.parquet")}


def states(summary: Summary) -> set[str]:
    return {stage.state for stage in summary.stages}


@pytest.mark.usefixtures("prefect_server")
def test_a_run_in_a_store_is_the_same_and_another_machine_trains_nothing(
    s3, move, monkeypatch, small, tmp_path
):
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "here"))
    here = knowledge_transfer(small)
    move("one", s3.url("toy"))
    one = knowledge_transfer(small)
    assert states(here) == states(one) == {"ran"}
    assert one.comparison == here.comparison
    assert digests(tmp_path / "one") == digests(tmp_path / "here")
    stored = {name.rpartition("/")[2] for name in s3.keys("toy") if name.endswith(".parquet")}
    assert stored == digests(tmp_path / "here")
    report = s3.get("toy", "reports/toy.html")
    assert b"testing-secret" not in report

    [victim] = [name for name in s3.keys("toy") if name.startswith("artifacts/targets")]
    whole = s3.get("toy", victim)
    s3.put("toy", victim, whole[:-1] + b"?")
    move("other", s3.url("toy"))
    other = knowledge_transfer(small)
    assert [stage.name for stage in other.stages if stage.state != "cached"] == ["targets"]
    assert other.comparison == here.comparison
    assert s3.get("toy", victim) == whole
    move("third", s3.url("toy"))
    assert find_report("toy").read_bytes() == report


def test_a_run_in_a_bucket_that_is_not_there_ends_before_it_begins(s3, tmp_path):
    (tmp_path / "any.yaml").write_text("experiment: any")
    world = World(tmp_path, tmp_path / "data", tmp_path / "any.yaml", "http://127.0.0.1:1/api")
    place = {"LLMKT_DATA_DIR": "s3://not-there/x", "LLMKT_LOCAL_DIR": str(tmp_path / "one")}
    said = world.refused(**place, **s3.environment)
    assert "s3://not-there/x: there is no such bucket or folder. Create it" in said
