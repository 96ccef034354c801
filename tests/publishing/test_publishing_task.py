"""The published set: swapped in whole, rolled back, pruned, and read."""

import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from flows import nightly_retrain
from models.config import Job
from models.errors import BadInput
from models.schemas import ITEMS, RECOMMENDATIONS, USERS
from tasks.nightly.promotion_log import promotions, record
from tasks.publishing.manifest import Manifest, current, folder_of, read, the_experiment, versions
from tasks.publishing.outputs import Promotion
from tasks.publishing.publishing_task import publishing
from tasks.publishing.recommendation_lookup import recommended
from tasks.publishing.versions import Overtaken, prune, publish, rollback
from tasks.results.database import database
from tasks.storage.artifacts import Handle, MissingArtifact, write_bytes, write_parquet
from tests.support.toy_runs import pipeline as small_pipeline

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row(version: str, previous: str | None, **changes) -> Promotion:
    known = {
        "experiment": "tiny",
        "decided_at": BEGAN + timedelta(hours=int(version)),
        "flow_run_id": None,
        "champion_version": previous,
        "challenger_version": version,
        "metric": "ndcg",
        "k": 10,
        "tolerance": 0.01,
        "decision": "published",
        "reason": "first champion",
        "interactions": 600,
        "new_interactions": 600,
        "quarantined": 0,
        "start": "cold",
    }
    return Promotion.model_validate(known | changes)


def manifest(version: str, previous: str | None) -> Manifest:
    return Manifest(
        experiment="tiny",
        version=version,
        created_at=BEGAN + timedelta(hours=int(version)),
        previous=previous,
        dataset="toy",
        job=Job.of(small_pipeline(), "BPR", "baseline", 1, {}),
        files={},
        inputs={},
        users_known=3,
        users_served=2,
        users_by_model=2,
        coverage=1.0,
        tail_share=0.5,
        served_from="all",
        vectors={"users": "none", "items": "none"},
        scored_by_product=False,
        metrics={"ndcg@10": 0.1},
        knowledge={},
        decision=row(version, previous),
        packages={},
    )


def release(version: str, previous: str | None, more: dict[str, Handle] | None = None) -> Manifest:
    """Publish a version whose every file says which version it is of."""
    lists = {
        "user_id": ["a", "a", "b"],
        "rank": [1, 2, 1],
        "item_id": ["i1", "i2", "i2"],
        "score": [float(version), 0.5, 0.25],
        "source": ["model", "model", "popular"],
    }
    items = {
        "item_id": ["i1", "i2"],
        "title": ["First", None],
        "year": [1999, None],
        "genres": [[], []],
    }
    strangers = {
        "user_id": [""],
        "rank": [1],
        "item_id": ["i1"],
        "score": [0.5],
        "source": ["popular"],
    }
    sources = {
        "recommendations.parquet": write_parquet("x", pa.table(lists, schema=RECOMMENDATIONS)),
        "popular.parquet": write_parquet("x", pa.table(strangers, schema=RECOMMENDATIONS)),
        "weights.safetensors": write_bytes("x", ".safetensors", version.encode() * 1000),
        "inputs/items.parquet": write_parquet("x", pa.table(items, schema=ITEMS)),
        "inputs/users.parquet": write_parquet(
            "x", pa.table({"user_id": ["a", "b", "c"]}, schema=USERS)
        ),
    }
    return publish(manifest(version, previous), sources | (more or {}))


def content(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder, byte for byte, links as links."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_a_version_says_what_it_holds_and_counts_at_once(data_dir):
    assert current("tiny") is None
    release("1", None)
    now = current("tiny")
    assert now is not None
    now.verify()
    assert now.version == "1"
    assert str((folder_of("tiny") / "current").readlink()) == "1"
    files = {p.relative_to(now.folder).as_posix() for p in now.folder.rglob("*") if p.is_file()}
    assert files == {"manifest.json", *now.files}
    plain = json.loads((data_dir / "published/tiny/current/manifest.json").read_text())
    assert plain["files"]["weights.safetensors"]["bytes"] == 1000
    assert not list(folder_of("tiny").glob(".writing-*"))


def read_again_and_again(stop, reads, mixed) -> None:
    """In another process: follow the link once, then compare every file with the manifest."""
    link = folder_of("tiny") / "current"
    while not stop.is_set():
        for _ in range(2000):
            assert link.is_symlink()  # never is there a moment without one
        now = current("tiny")
        try:
            now.verify()
        except MissingArtifact as error:
            mixed.put(str(error))
            return
        weights = (now.folder / "weights.safetensors").read_bytes()
        lists = pq.read_table(now.folder / "recommendations.parquet")
        if weights != now.version.encode() * 1000 or lists["score"][0].as_py() != int(now.version):
            mixed.put(f"{now.version} held {weights[:8]!r}")
            return
        reads[int(now.version)] += 1


def test_a_reader_sees_the_old_or_the_new_and_never_a_mixture(data_dir):
    assert data_dir
    context = multiprocessing.get_context("spawn")
    stop, reads, mixed = context.Event(), context.Array("l", 1000), context.Queue()
    release("1", None)
    reader = context.Process(target=read_again_and_again, args=(stop, reads, mixed))
    reader.start()
    try:
        last = 1
        # Until the reader has seen a good number of versions, however slow the machine is.
        while sum(count > 0 for count in reads) < 12 and reader.is_alive() and last < 900:
            last += 1
            release(str(last), str(last - 1))
            prune("tiny", keep=400)
    finally:
        stop.set()
        reader.join(60)
    assert mixed.empty(), mixed.get()
    assert reader.exitcode == 0
    assert sum(count > 0 for count in reads) >= 12
    assert len(versions("tiny")) == min(last, 400)


@pytest.mark.parametrize("at", ["_copy", "_point", "_flush"])
def test_whatever_fails_while_publishing_leaves_the_published_set_as_it_was(
    data_dir, monkeypatch, at
):
    assert data_dir
    release("1", None)
    before = content(folder_of("tiny"))

    def full(path, *_):
        if at != "_flush" or path.is_dir():
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"tasks.publishing.versions.{at}", full)
        with pytest.raises(OSError, match="No space"):
            release("2", "1")
    now = current("tiny")
    assert now.version == "1"
    now.verify()
    after = content(folder_of("tiny"))
    assert {name: after[name] for name in before} == before
    prune("tiny", keep=2)
    release("2", "1")  # the next attempt is not hindered by what is left
    assert current("tiny").version == "2"
    current("tiny").verify()


def test_a_source_that_was_altered_is_not_published(data_dir):
    release("1", None)
    for path in (data_dir / "artifacts" / "x").glob("*.safetensors"):
        path.write_bytes(b"other")
    source = write_bytes("x", ".safetensors", b"good")
    source.file.write_bytes(b"evil")
    with pytest.raises(MissingArtifact, match="was altered"):
        publish(manifest("2", "1"), {"weights.safetensors": source})
    assert current("tiny").version == "1"


def test_a_version_that_a_killed_night_left_half_is_written_anew(data_dir):
    assert data_dir
    release("1", None)
    left = folder_of("tiny") / "2"
    left.mkdir()
    (left / "manifest.json").write_text("{")
    release("2", "1")
    current("tiny").verify()
    half = folder_of("tiny") / ".writing-abc"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    prune("tiny", keep=5)
    assert not half.exists()


def test_a_challenger_of_a_champion_that_no_longer_counts_is_not_published(data_dir):
    assert data_dir
    release("1", None)
    release("2", "1")
    rollback("tiny")
    with pytest.raises(Overtaken, match="1 has become current"):
        release("3", "2")
    assert current("tiny").version == "1"


def test_rollback_follows_what_each_version_replaced(data_dir):
    assert data_dir
    for version, previous in (("1", None), ("2", "1"), ("3", "2")):
        release(version, previous)
    was, now = rollback("tiny")
    assert (was.version, now.version) == ("3", "2")
    release("4", "2")  # beat version 2, so that it leads back there and not to 3
    assert rollback("tiny")[1].version == "2"
    assert rollback("tiny")[1].version == "1"
    with pytest.raises(BadInput, match="no version before it"):
        rollback("tiny")


def test_rollback_does_not_lead_to_an_altered_version(data_dir):
    assert data_dir
    release("1", None)
    release("2", "1")
    (folder_of("tiny") / "1" / "weights.safetensors").write_bytes(b"?")
    with pytest.raises(MissingArtifact, match="was altered"):
        rollback("tiny")
    assert current("tiny").version == "2"


def test_pruning_spares_what_counts_and_what_it_leads_back_to(data_dir):
    assert data_dir
    for number in range(1, 6):
        release(str(number), str(number - 1) if number > 1 else None)
    for _ in range(3):
        rollback("tiny")  # 2 counts, and leads back to 1: the two oldest
    assert prune("tiny", keep=3) == ["4", "3"]
    assert [kept.version for kept in versions("tiny")] == ["5", "2", "1"]
    assert prune("tiny", keep=2) == ["5"]
    assert current("tiny").version == "2"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 99999, None])
def test_a_broken_old_manifest_is_no_version_and_stops_no_pruning(data_dir, content):
    assert data_dir
    for number in range(1, 6):
        release(str(number), str(number - 1) if number > 1 else None)
    broken = folder_of("tiny") / "3" / "manifest.json"
    other = (folder_of("tiny") / "5" / "manifest.json").read_bytes()  # of another folder
    broken.write_bytes(other if content is None else content)
    assert [kept.version for kept in versions("tiny")] == ["5", "4", "2", "1"]
    assert prune("tiny", keep=2) == ["2", "1"]
    assert current("tiny").version == "5"
    with pytest.raises(BadInput, match=r"3/manifest\.json: missing, damaged or of another version"):
        read("tiny", "3")


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_nothing_after_the_swap_fails_the_night(monkeypatch):
    def fails(*_):
        raise OSError("no such disk")

    release("1", None)
    new = manifest("2", "1")
    handle = write_bytes("x", ".bin", b"x")
    monkeypatch.setattr("tasks.publishing.publishing_task.prune", fails)
    assert publishing.fn(new, {"weights.safetensors": handle}, 2, True).version == "2"
    assert current("tiny").version == "2"

    for act in ("record", "announce", "tell", "deliver_current"):
        monkeypatch.setattr(nightly_retrain, act, fails)  # whatever happens after the swap
    row = new.decision.model_copy(update={"decision": "published", "challenger_version": "2"})
    night = SimpleNamespace(pipeline=small_pipeline().model_copy(update={"experiment": "tiny"}))
    ended = nightly_retrain._end(night, row, SimpleNamespace(records=[]))
    assert (ended.version, ended.reason.count("afterwards: no such disk")) == ("2", 4)
    with pytest.raises(OSError, match="no such disk"):  # its row is all that such a night leaves
        nightly_retrain._end(
            night, row.model_copy(update={"decision": "kept"}), SimpleNamespace(records=[])
        )


def test_a_current_that_is_no_link(data_dir):
    (data_dir / "published" / "tiny" / "current").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"current: not a link to a version\. Remove it"):
        current("tiny")


def test_recommendations_are_read_with_titles(data_dir):
    assert data_dir
    release("7", None)
    found = recommended("tiny", "a")
    assert [(row.rank, row.item_id, row.title, row.year) for row in found.items] == [
        (1, "i1", "First", 1999),
        (2, "i2", None, None),
    ]
    assert found.version == "7"
    assert len(recommended("tiny", "a", 1).items) == 1
    with pytest.raises(BadInput, match=r"has 2 recommendations for user a\. Raise nightly.k"):
        recommended("tiny", "a", 3)
    assert found.source == "model"
    assert recommended("tiny", "b").source == "popular"
    with pytest.raises(BadInput, match=r"user c has no recommendations in 7 .* whole catalogue"):
        recommended("tiny", "c")
    with pytest.raises(BadInput, match="user nobody is not known to 7 of tiny"):
        recommended("tiny", "nobody")
    (current("tiny").folder / "recommendations.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="not as published"):
        recommended("tiny", "a")


def test_every_byte_of_what_is_read_is_checked(data_dir):
    assert data_dir
    release("7", None)
    for name in ("recommendations.parquet", "inputs/items.parquet", "inputs/users.parquet"):
        path = folder_of("tiny") / "7" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes(9))  # of the same size
        with pytest.raises(BadInput, match=f"{name} was altered.*not as published"):
            recommended("tiny", "nobody" if "users" in name else "a")
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a\\..\\b", "a\0b", "a/./b", "../"],
)
def test_no_name_leads_out_of_the_data_folder(data_dir, name):
    assert data_dir
    with pytest.raises(ValidationError, match="not the name of a file"):
        Handle(path=name, sha256="0" * 64, rows=0)
    release("7", None)
    path = folder_of("tiny") / "7" / "manifest.json"
    written = json.loads(path.read_text())
    for change in (
        {"previous": name},
        {"version": name},
        {"files": {name: written["files"]["weights.safetensors"]}},
    ):
        path.write_text(json.dumps(written | change))
        with pytest.raises(BadInput, match="missing, damaged"):
            current("tiny")
    path.write_text(json.dumps(written | {"version": "8"}))
    with pytest.raises(BadInput, match="of another version"):
        current("tiny")


def test_the_link_to_the_current_version_leads_to_no_other_folder(data_dir):
    assert data_dir
    release("7", None)
    link = folder_of("tiny") / "current"
    link.unlink()
    link.symlink_to("../../elsewhere")
    with pytest.raises(BadInput, match="missing, damaged"):
        current("tiny")


def test_which_experiment_is_meant(data_dir):
    with pytest.raises(BadInput, match="nothing is published"):
        the_experiment(None)
    release("1", None)
    assert the_experiment(None) == the_experiment("tiny") == "tiny"
    with pytest.raises(BadInput, match=r"other is not published\. Choose .* one of tiny"):
        the_experiment("other")
    another = data_dir / "published" / "another"
    another.mkdir()
    (another / "current").symlink_to("nowhere")
    with pytest.raises(BadInput, match="several experiments are published"):
        the_experiment(None)
    with pytest.raises(BadInput, match=r"nowhere/manifest.json: missing"):
        current("another")
    (data_dir / "published/tiny/1/manifest.json").write_text('{"version": "1"}')
    with pytest.raises(BadInput, match=r"Point .*current to another version"):
        read("tiny", "1")


def test_a_night_told_twice_is_one_row(data_dir):
    assert promotions("tiny") == []
    record([row("1", None)])
    record([row("1", None), row("2", "1", decision="kept", reason="why", ci_low=-0.5, users=12)])
    newest, oldest = promotions("tiny")
    assert (newest["decision"], newest["ci_low"], newest["users"]) == ("kept", -0.5, 12)
    assert (oldest["decision"], oldest["ci_low"], oldest["champion_version"]) == (
        "published",
        None,
        None,
    )
    with database(read_only=True) as connection:
        types = dict(
            connection.execute(
                "SELECT column_name, data_type FROM duckdb_columns() "
                "WHERE table_name = 'promotions'"
            ).fetchall()
        )
    assert types["decided_at"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["k"], types["users"], types["cost_usd"]) == ("INTEGER", "INTEGER", "DOUBLE")
    assert set(types) == set(Promotion.model_fields)
    assert data_dir.is_dir()


def test_vectors_are_what_is_scored():
    """BPR and LightGCN score by the product of both vectors; MultiVAE's differ in width."""
    from models.publishing.vector_export import scored_by_product, vectors
    from tests.support import toy_recommender

    for name, product in (("BPR", True), ("LightGCN", True), ("NeuMF", False)):
        built = toy_recommender.recommender(name)
        users, items = vectors(built, "users"), vectors(built, "items")
        assert len(users.ids) == toy_recommender.N_USERS
        assert len(items.ids) == toy_recommender.N_ITEMS
        assert scored_by_product(built, users, items) is product, name
        if product:
            built.module.eval()
            scores = built.scores(toy_recommender.torch.tensor([3, 5])).numpy()[:, 1:]
            rows = users.matrix[np.searchsorted(users.ids, [3, 5])]
            np.testing.assert_allclose(rows @ items.matrix.T, scores, rtol=1e-4, atol=1e-5)
    small = toy_recommender.recommender("NeuMF")  # everything is close to nothing, and unequal
    small.restore({name: 1e-3 * value for name, value in small.weights().items()})
    assert not scored_by_product(small, vectors(small, "users"), vectors(small, "items"))
    vae = toy_recommender.recommender("MultiVAE")
    both = vectors(vae, "users"), vectors(vae, "items")
    assert both[0].matrix.shape == (toy_recommender.N_USERS, 64)
    assert both[1].matrix.shape == (toy_recommender.N_ITEMS, 600)
    assert not scored_by_product(vae, *both)
    assert (
        vectors(toy_recommender.recommender("SASRec"), "users") is None
    )  # a state per place in the order
    assert vectors(toy_recommender.recommender("Pop"), "users") is None
