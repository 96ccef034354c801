"""Cached stages: keys by content, results that heal, locks that a kill does not leave behind."""

import multiprocessing
import os
import signal
import time

import pyarrow as pa
import pytest
from prefect import flow

from models.config import Training
from tasks.execution.cache_key import cache_key
from tasks.execution.file_locks import KernelFileLocks
from tasks.execution.stage import stage
from tasks.storage.artifacts import (
    Handle,
    MissingArtifact,
    read_parquet,
    write_bytes,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("data_dir")

CALLS: list[int] = []


@stage("doubling", version=1, ignore=("note",))
def doubling(source: Handle, note: str) -> Handle:  # noqa: ARG001 - what it ignores
    """Twice the numbers of an artifact."""
    CALLS.append(1)
    table = read_parquet(source)
    return write_parquet("doubling", pa.table({"n": [2 * n for n in table["n"].to_pylist()]}))


@flow
def double(source: Handle, note: str = "") -> tuple[str, Handle]:
    state = doubling(source, note, return_state=True)
    return state.name, state.result()


def numbers(*values: int) -> Handle:
    return write_parquet("numbers", pa.table({"n": list(values)}))


@pytest.mark.usefixtures("prefect_server")
def test_a_stage_runs_once_per_content():
    first_state, first = double(numbers(1, 2))
    again_state, again = double(numbers(1, 2), note="another way to do the same")
    other_state, other = double(numbers(3))
    assert (first_state, again_state, other_state) == ("Completed", "Cached", "Completed")
    assert again == first != other
    assert read_parquet(again)["n"].to_pylist() == [2, 4]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("harm", [False, True])
def test_looking_takes_a_result_from_the_cache_and_computes_what_is_lost(harm):
    source = numbers(7, 8)
    _, handle = double(source)
    if harm:
        handle.file.unlink()
    before = len(CALLS)
    assert doubling.recall(source, "a note") == handle
    assert len(CALLS) - before == harm
    assert read_parquet(handle)["n"].to_pylist() == [14, 16]


def test_looking_computes_what_no_run_has_left():
    handle = doubling.recall(numbers(9), "")
    assert read_parquet(handle)["n"].to_pylist() == [18]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("harm", ["delete", "alter"])
def test_a_lost_or_altered_artifact_is_computed_again(harm):
    _, handle = double(numbers(5, 6))
    if harm == "delete":
        handle.file.unlink()
    else:
        handle.file.write_bytes(handle.file.read_bytes()[:-1] + b"?")
    state, healed = double(numbers(5, 6))
    assert state == "Completed"
    assert healed == handle
    assert read_parquet(healed)["n"].to_pylist() == [10, 12]
    assert double(numbers(5, 6))[0] == "Cached"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("now", "then"),
    [("tasks.storage.artifacts.Handle", "tasks.gone.Handle"), ('\\"sha256\\"', '\\"digest\\"')],
    ids=["class", "field"],
)
def test_a_result_of_a_class_that_changed_is_computed_again(data_dir, now, then):
    _, handle = double(numbers(7, 7))
    for path in (data_dir / "cache").iterdir():
        text = path.read_text()
        assert now in text
        path.write_text(text.replace(now, then))
    assert doubling.cached(handle, "") is None
    assert double(numbers(7, 7))[0] == "Completed"
    assert double(numbers(7, 7)) == ("Cached", handle)


def test_keys_tell_content_and_version_apart_and_hold_no_separators():
    one, two = numbers(1), numbers(2)
    key = cache_key("split", 1, {"a": one, "b": Training(workers=1)})
    assert key == cache_key("split", 1, {"b": Training(workers=7), "a": one})
    assert len({key, cache_key("split", 2, {"a": one, "b": Training()})}) == 2
    assert len({key, cache_key("split", 1, {"a": two, "b": Training()})}) == 2
    assert len({key, cache_key("split", 1, {"a": one, "b": Training(epochs=9)})}) == 2
    assert not set(key) & set("./\\ ")


def test_artifacts_are_named_by_content_and_verified():
    one, same = numbers(1, 2), numbers(1, 2)
    assert one == same
    assert one.file.name == f"{one.sha256[:20]}.parquet"
    assert not list(one.file.parent.glob(".writing-*"))
    weights = write_bytes("weights", ".bin", b"abc")
    weights.file.write_bytes(b"abd")
    with pytest.raises(MissingArtifact, match="was altered"):
        weights.verify()
    weights.file.unlink()
    with pytest.raises(MissingArtifact, match="is gone"):
        weights.verify()


def test_parquet_carries_its_origin():
    source = numbers(1)
    handle = write_parquet("next", pa.table({"x": [1]}), {"source": source}, {"k": 10})
    metadata = read_parquet(handle).schema.metadata[b"llmkt"].decode()
    assert source.sha256 in metadata
    assert '"k": 10' in metadata
    assert '"recbole": "1.2.1"' in metadata


def hold(key: str, holding) -> None:
    locks = KernelFileLocks()
    locks.acquire_lock(key, "child")
    holding.set()
    time.sleep(600)


def test_a_killed_holder_leaves_no_lock():
    context = multiprocessing.get_context("spawn")
    holding = context.Event()
    child = context.Process(target=hold, args=("some-key", holding))
    child.start()
    assert holding.wait(300)
    locks = KernelFileLocks()
    assert locks.is_locked("some-key")
    assert not locks.acquire_lock("some-key", "me", acquire_timeout=0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert locks.acquire_lock("some-key", "me", acquire_timeout=60)
    assert locks.is_lock_holder("some-key", "me")
    with pytest.raises(ValueError, match="does not hold"):
        locks.release_lock("some-key", "somebody else")
    locks.release_lock("some-key", "me")
    assert not locks.is_locked("some-key")
