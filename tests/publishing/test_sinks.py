"""Sinks: a version once each, whatever is down, and never half a version for a reader."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from models.config import Sink
from models.embeddings.text_batches import to_table
from models.schemas import ITEM, USER, VECTOR, Epoch
from tasks.publishing import sinks
from tasks.publishing.manifest import Manifest, current
from tasks.publishing.sinks import deliver
from tasks.publishing.tracker_sinks import to_tensorboard, to_wandb
from tasks.publishing.versions import rollback
from tasks.storage.artifacts import write_parquet
from tests.publishing.test_publishing_task import release

REDIS = shutil.which("redis-server")
COPY = "import shutil, sys; shutil.copytree(sys.argv[2], sys.argv[1], dirs_exist_ok=True)"


def command(*parts: str) -> Sink:
    return Sink(kind="command", command=parts)


def test_a_sink_that_is_down_for_three_nights_gets_the_newest_version(data_dir, tmp_path):
    target, count = tmp_path / "copy", tmp_path / "count"
    script = tmp_path / "sink.py"
    script.write_text(f"open({str(count)!r}, 'a').write('x')\n{COPY}\n")
    up = command(sys.executable, "-c", "raise SystemExit(0)")
    down = command(sys.executable, str(script), str(target))
    moved = script.rename(tmp_path / "away.py")
    for version, previous in (("1", None), ("2", "1"), ("3", "2")):
        release(version, previous)
        [failure] = deliver(current("tiny"), [down, up])  # one that fails leaves the others be
        assert f"did not take {version}" in failure
        assert current("tiny").version == version  # nothing is unpublished
    moved.rename(script)
    assert deliver(current("tiny"), [down, up]) == []
    assert json.loads((target / "manifest.json").read_text())["version"] == "3"
    assert deliver(current("tiny"), [down, up]) == []
    assert count.read_text() == "x"  # once per version
    rollback("tiny")
    assert deliver(current("tiny"), [down]) == []
    assert json.loads((target / "manifest.json").read_text())["version"] == "2"
    assert data_dir.is_dir()


def test_what_a_kill_left_undone_is_delivered_again(data_dir, monkeypatch):
    assert data_dir
    release("1", None)
    done = []
    monkeypatch.setitem(sinks._DELIVERIES, "command", lambda _, sink: done.append(sink))
    with monkeypatch.context() as patch:
        patch.setattr(sinks, "replacing", killed)  # after the delivery, before its note
        with pytest.raises(KeyboardInterrupt):
            deliver(current("tiny"), [command("a")])
    assert deliver(current("tiny"), [command("a"), command("b")]) == []
    assert [sink.command for sink in done] == [("a",), ("a",), ("b",)]


def killed(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "redis"}, "needs url"),
        ({"kind": "command"}, "needs command"),
        ({"kind": "redis", "url": "redis://:hunter2@host/0"}, "user name or password"),
    ],
)
def test_settings_of_no_use_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Sink.model_validate(given)


def test_a_password_is_not_in_the_failure(data_dir, monkeypatch):
    assert data_dir
    release("1", None)
    monkeypatch.setenv("REDIS_WORD", "correct-horse")
    sink = Sink(kind="redis", url="redis://127.0.0.1:1/0", password_env="REDIS_WORD")
    [failure] = deliver(current("tiny"), [sink])
    assert "sink redis did not take 1" in failure
    assert "correct-horse" not in failure


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    if REDIS is None:
        pytest.skip("redis-server is missing (apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [REDIS, "--port", str(port), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def test_redis_holds_the_current_version_and_the_one_before(data_dir, redis):
    from redis import Redis

    assert data_dir
    client, sink = Redis.from_url(redis), Sink(kind="redis", url=redis)
    for version, previous in (("1", None), ("2", "1"), ("3", "2")):
        release(version, previous)
        assert deliver(current("tiny"), [sink]) == []
    now = client.get("llmkt:tiny:current").decode()
    assert now == "3"
    found = json.loads(client.hget(f"llmkt:tiny:{now}", "a"))
    assert (found["version"], found["source"]) == ("3", "model")
    assert [item["item_id"] for item in found["items"]] == ["i1", "i2"]
    assert json.loads(client.hget("llmkt:tiny:3", ""))["source"] == "popular"  # for strangers
    assert set(client.keys()) == {b"llmkt:tiny:current", b"llmkt:tiny:2", b"llmkt:tiny:3"}
    rollback("tiny")
    assert deliver(current("tiny"), [sink]) == []
    assert client.get("llmkt:tiny:current") == b"2"


def test_qdrant_finds_the_current_version_by_its_alias(data_dir, tmp_path):
    from qdrant_client import QdrantClient

    def night(version: str, previous: str | None) -> None:
        items = to_table(pa.array(["i1", "i2"]), VECTOR, np.eye(2, 3, dtype=np.float32), ITEM)
        users = np.array([[float(version), 0, 0], [0, 1, 0]], np.float32)
        users = to_table(pa.array(["a", "b"]), VECTOR, users, USER)
        tables = {"users.parquet": users, "items.parquet": items}
        release(version, previous, {n: write_parquet("x", table) for n, table in tables.items()})

    assert data_dir
    sink = Sink(kind="qdrant", url=str(tmp_path / "qdrant"))
    for version, previous in (("1", None), ("2", "1"), ("3", "2")):
        night(version, previous)
        assert deliver(current("tiny"), [sink]) == []
    rollback("tiny")
    assert deliver(current("tiny"), [sink]) == []
    with closing(QdrantClient(path=sink.url)) as client:
        [user] = client.scroll("llmkt-tiny-users", limit=1, with_vectors=True)[0]
        assert user.payload == {"user_id": "a"}
        best = client.query_points("llmkt-tiny-items", query=user.vector, limit=2).points
        assert [(point.payload["item_id"], point.score) for point in best] == [("i1", 2), ("i2", 0)]
        names = {each.name for each in client.get_collections().collections}
    assert names == {f"llmkt-tiny-{side}-{n}" for side in ("users", "items") for n in (2, 3)}
    release("4", "2")
    [failure] = deliver(current("tiny"), [sink])
    assert "no vectors of users. Set another kind of sink" in failure


def published() -> Manifest:
    release("1", None)
    made = current("tiny")
    epochs = tuple(
        Epoch(
            phase="train", epoch=n, model_loss=n + 1, transfer_loss=None, valid_score=0, seconds=1
        )
        for n in range(2)
    )
    return made.model_copy(update={"epochs": epochs})


def test_tensorboard_shows_epochs_and_metrics(data_dir, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert data_dir
    version, sink = published(), Sink(kind="tensorboard", url=str(tmp_path))
    for _ in range(2):  # what a kill left is replaced
        to_tensorboard(version, sink)
        read = EventAccumulator(str(tmp_path / "tiny" / "1")).Reload()
        assert [(e.step, e.value) for e in read.Scalars("model_loss")] == [(0, 1.0), (1, 2.0)]
        assert read.Scalars("ndcg@10")[0].value == pytest.approx(version.metrics["ndcg@10"])
    assert [folder.name for folder in (tmp_path / "tiny").iterdir()] == ["1"]


def test_wandb_gets_a_run_whose_id_is_the_version(data_dir, monkeypatch):
    fake = MagicMock(Settings=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_WORD", "correct-horse")
    to_wandb(published(), Sink(kind="wandb", url="http://127.0.0.1:1", password_env="WANDB_WORD"))
    call, logged = fake.init.call_args.kwargs, fake.init().__enter__().log.call_args_list
    assert (call["project"], call["id"], call["dir"]) == ("tiny", "1", data_dir)
    assert call["settings"].api_key == "correct-horse"
    assert call["config"]["model"] == "BPR"
    assert [each.kwargs["step"] for each in logged] == [0, 0, 1]
    assert logged[2].args[0]["model_loss"] == 2.0


def test_a_missing_wandb_is_one_sentence(data_dir, monkeypatch):
    assert data_dir
    release("1", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    [failure] = deliver(current("tiny"), [Sink(kind="wandb", url="http://127.0.0.1:1")])
    assert failure.endswith("the package wandb is missing. Install it.")
