"""The published lists over HTTP, and the swap to a new version without a restart."""

import time

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from flows.lists_api import lists_api
from models.schemas import ITEM, vectors
from tasks.publishing.manifest import current, folder_of
from tasks.publishing.versions import publish, rollback
from tasks.storage.artifacts import write_parquet
from tests.publishing.test_publishing_task import manifest, release


@pytest.fixture
def client(data_dir):
    assert data_dir
    release("1", None)
    return TestClient(lists_api("tiny"))


def until(client: TestClient, version: str) -> None:
    for _ in range(500):
        if client.get("/healthz").json() == {"status": "ok", "version": version}:
            return
        time.sleep(0.02)
    raise AssertionError(f"{version} is not served")


def test_lists_of_users_and_of_strangers(client):
    answer = client.get("/recommend/a")
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "experiment": "tiny",
        "version": "1",
        "user_id": "a",
        "source": "model",
        "items": [
            {"rank": 1, "item_id": "i1", "title": "First", "year": 1999, "score": 1.0},
            {"rank": 2, "item_id": "i2", "title": None, "year": None, "score": 0.5},
        ],
    }
    stranger = client.get("/recommend/who/ever").json()
    assert (stranger["user_id"], stranger["source"]) == (None, "popular")
    unchanged = client.get("/recommend/a", headers={"if-none-match": '"1"'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (
        client.get("/version").json()["files"] == current("tiny").model_dump(mode="json")["files"]
    )


def test_a_new_version_and_a_rollback_are_swapped_in_and_a_damaged_one_is_not(client, capsys):
    release("2", "1")
    until(client, "2")
    assert client.get("/recommend/a", headers={"if-none-match": '"1"'}).json()["version"] == "2"
    rollback("tiny")
    until(client, "1")
    release("3", "1")
    (folder_of("tiny") / "3" / "recommendations.parquet").write_bytes(b"PAR1")
    for _ in range(20):
        assert client.get("/recommend/a").json()["version"] == "1"
        time.sleep(0.02)
    (folder_of("tiny") / "current").unlink()  # to begin anew
    assert client.get("/recommend/a").status_code == 200
    assert capsys.readouterr() is not None


def test_neighbours_of_items(client):
    assert client.get("/similar/i1").status_code == 404  # the version has no vectors
    rows = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0, 0, 1, 2, 1], pa.float32()), 2)
    table = pa.table([["i1", "i2", "i3"], rows], schema=vectors("vector", 2, ITEM))
    one = current("tiny")
    sources = {name: one.handle(name) for name in one.files}
    publish(manifest("2", "1"), sources | {"items.parquet": write_parquet("x", table)})
    until(client, "2")
    found = client.get("/similar/i1", params={"k": 1}).json()
    assert found["item_id"] == "i1"
    assert [near["item_id"] for near in found["items"]] == ["i3"]
    assert found["items"][0]["cosine"] == pytest.approx(2 / 5**0.5, abs=1e-6)
    assert client.get("/similar/nothing").status_code == 404
