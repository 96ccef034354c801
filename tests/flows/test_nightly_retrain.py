"""Whole nights on a small data set that grows: what is published, kept out and paid for."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows import nightly_retrain as nightly_retrain_module
from flows.cli.main import app
from flows.nightly_retrain import Ended, nightly_retrain
from models.config import Pipeline
from models.dataset.splitting import split
from models.errors import BadInput
from tasks.nightly.knowledge_task import is_due
from tasks.nightly.night import alone
from tasks.nightly.promotion_log import measured, promotions, record, store
from tasks.publishing.manifest import current, folder_of
from tasks.publishing.outputs import Promotion
from tasks.publishing.versions import rollback
from tasks.storage.artifacts import MissingArtifact, read_parquet
from tests.publishing.test_publishing_task import content, row
from tests.support.fake_llm import KEY, FakeLLM
from tests.support.toy_project import no_workers
from tests.support.toy_world import MEDIUM

pytest_plugins = ("tests.support.fake_llm",)

TEMPLATE = """{% block system %}Describe.{% endblock %}
{% block user %}Likes {{ history[0].title }}{% for of in history %} {{ of.title }}{% endfor %}
{% endblock %}"""


def settings(folder: Path, **nightly) -> dict:
    return {
        "experiment": "toy",
        "dataset": MEDIUM.write(folder),
        "embeddings": {"provider": "hashing"},
        "targets": {"reduction": "pca"},
        "models": {
            "BPR": {
                "hyperparameters": {
                    "embedding_size": 8,
                    "train_batch_size": 64,
                    "learning_rate": 0.02,
                }
            }
        },
        "training": {"epochs": 12, "patience": 4, "valid_metric": "ndcg@5"},
        "evaluation": {"metrics": ["ndcg", "recall"], "k": [5, 10], "primary": "ndcg@10"},
        "nightly": {
            "settle_seconds": 0,
            "min_new_interactions": 6,
            "tolerance": 0.1,
            "k": 12,
        }
        | nightly,
    }


def night(given: dict, **nightly) -> Ended:
    changed = given | {"nightly": given["nightly"] | nightly}
    return nightly_retrain(Pipeline.model_validate(changed))


def drop(data: Path, name: str, lines: list[str]) -> None:
    folder = data / "incoming"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("user_id,item_id,rating,timestamp\n" + "\n".join(lines) + "\n")


def new_rows(data: Path, n: int, second: int) -> list[str]:
    """The newest interactions: the first users with a film of their taste that they do not know."""
    known = read_parquet(current("toy").inputs["interactions"])
    has = set(zip(known["user_id"].to_pylist(), known["item_id"].to_pylist(), strict=True))
    assert data.is_dir()
    lines = []
    for user in range(n):
        item = next(i for i in range(20 * (user % 2), 40) if (f"u{user}", f"i{i}") not in has)
        lines.append(f"u{user},i{item},5,{second + user}")
    return lines


@pytest.fixture(scope="module")
def first(tmp_path_factory, prefect_server) -> tuple[Path, dict, Ended]:
    """The data set's folder, the configuration, and the first night, with its data folder."""
    assert prefect_server
    folder = tmp_path_factory.mktemp("nights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMKT_DATA_DIR", str(folder / "data"))
        given = settings(folder)
        with no_workers():
            ended = night(given)
    return folder, given, ended


@pytest.fixture
def world(first, tmp_path, monkeypatch) -> Iterator[tuple[Path, dict]]:
    """A data folder of one's own, as the first night left it, and the configuration."""
    folder, given, _ = first
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data, symlinks=True)
    monkeypatch.setenv("LLMKT_DATA_DIR", str(data))
    with no_workers():
        yield data, given


def test_the_first_night_publishes(first, world):
    _, _, ended = first
    data, _ = world
    assert [stage.name for stage in ended.stages] == [
        "interactions",
        "fold_in",
        "split",
        "profiles",
        "embeddings",
        "targets",
        "training",
        "gate",
        "refit",
        "recommendations",
        "publishing",
    ]
    assert ended.decision == "published"
    assert ended.reason.startswith("first champion, NDCG@10 0.")
    now = current("toy")
    now.verify()
    assert now.version == ended.version
    assert now.knowledge["profile_source"] == "offline"
    [row] = promotions("toy")
    assert row["challenger_version"] == ended.version
    assert (row["champion_version"], row["ci_low"]) == (None, None)
    assert (row["interactions"], row["new_interactions"], row["cost_usd"]) == (600, 600, 0.0)
    assert data.is_dir()


def test_the_published_set_holds_what_it_says(world):
    assert world
    now = current("toy")
    lists = pq.read_table(now.folder / "recommendations.parquet")
    served = set(lists["user_id"].to_pylist())
    assert len(served) == now.users_served == now.users_known == 60
    known = read_parquet(now.inputs["interactions"])
    seen = set(zip(known["user_id"].to_pylist(), known["item_id"].to_pylist(), strict=True))
    offered = list(zip(lists["user_id"].to_pylist(), lists["item_id"].to_pylist(), strict=True))
    assert not seen & set(offered)  # nothing known is offered again, the holdout included
    assert len(set(offered)) == len(offered) == 12 * len(served)
    assert lists["rank"].to_pylist() == list(range(1, 13)) * len(served)
    users, items = (pq.read_table(now.folder / f"{side}.parquet") for side in ("users", "items"))
    assert set(users["user_id"].to_pylist()) == served
    assert items.num_rows == 40
    assert now.vectors == {
        "users": "module user_embedding, 8 wide",
        "items": "module item_embedding, 8 wide",
    }
    assert now.scored_by_product
    vectors = [np.stack(table["vector"].to_numpy()) for table in (users, items)]
    scores = vectors[0] @ vectors[1].T
    row = users["user_id"].to_pylist().index("u7")
    of_u7 = lists.filter(pc.equal(lists["user_id"], "u7")).to_pylist()
    columns = [items["item_id"].to_pylist().index(listed["item_id"]) for listed in of_u7]
    np.testing.assert_allclose(
        scores[row, columns], [listed["score"] for listed in of_u7], rtol=1e-4
    )


def test_both_models_are_in_the_manifest_and_a_row_says_whom_they_serve(world):
    assert world
    now = current("toy")
    assert now.served_from == "all"
    digests = [now.files[f"{name}.safetensors"].sha256 for name in ("weights", "judged")]
    assert digests[0] != digests[1]
    job, weights, inputs = now.judged_model()
    assert (weights.sha256, inputs.train.rows) == (digests[1], 420)
    assert now.handle("inputs/interactions.parquet").rows == 600
    row = promotions("toy")[0]
    assert (row["users_known"], row["users_served"], row["users_by_model"]) == (60, 60, 60)
    assert 0 < row["coverage"] <= 1
    assert 0 <= row["tail_share"] <= 1
    assert job.model == "BPR"


def test_a_drop_at_two_is_in_the_lists_of_three_and_the_refit_asks_nobody(world, monkeypatch):
    data, given = world
    lines = [f"fresh,i{n},5,{700 + n}" for n in range(5)] + ["u0,i21,5,710"]
    drop(data, "new.csv", lines)

    def asked(*_, **__):
        raise AssertionError("the refit paid for something")

    refit = nightly_retrain_module.refit.fn

    def alone_with_its_inputs(*args):
        with monkeypatch.context() as patch:
            patch.setattr("tasks.embeddings.embeddings_task.vector_store", asked)
            patch.setattr("tasks.profiles.profiles_task.PROVIDERS", {})
            return refit(*args)

    monkeypatch.setattr(nightly_retrain_module.refit, "fn", alone_with_its_inputs)
    ended = night(given)
    assert ended.decision == "published"
    row = ended.promotion
    assert (row.users_known, row.users_served, row.users_by_model) == (61, 61, 61)
    now = current("toy")
    lists = pq.read_table(now.folder / "recommendations.parquet")
    mine = lists.filter(pc.equal(lists["user_id"], "fresh"))
    assert set(mine["source"].to_pylist()) == {"model"}
    assert not set(mine["item_id"].to_pylist()) & {f"i{n}" for n in range(5)}
    of_u0 = lists.filter(pc.equal(lists["user_id"], "u0"))
    assert "i21" not in of_u0["item_id"].to_pylist()
    texts = now.inputs["profiles of users"]
    assert "fresh" not in read_parquet(texts)["user_id"].to_pylist()  # held out, so not described
    judged = night(given, serve_from="judged", min_new_interactions=0, tolerance=1)
    lists = pq.read_table(current("toy").folder / "recommendations.parquet")
    row = judged.promotion
    assert judged.decision == "published"
    assert (row.users_known, row.users_served, row.users_by_model) == (61, 61, 60)
    sources = dict(zip(lists["user_id"].to_pylist(), lists["source"].to_pylist(), strict=True))
    assert (sources["fresh"], sources["u1"]) == ("popular", "model")


def test_a_night_without_news_is_skipped(world):
    data, given = world
    before = content(folder_of("toy"))
    drop(data, "late.csv", ["u4,i39,5,700", "u2,i39,5,701", "u4,i39,5,702", "broken,,,"])
    ended = night(given)
    assert (ended.decision, ended.reason) == ("skipped", "2 new interactions, 6 needed")
    assert [stage.name for stage in ended.stages] == ["interactions", "incoming", "fold_in"]
    assert content(folder_of("toy")) == before
    newest = promotions("toy")[0]
    assert (newest["decision"], newest["new_interactions"]) == ("skipped", 2)
    assert (newest["quarantined"], newest["challenger_version"]) == (1, None)
    # What was too little counts on: four more are six since the last challenger.
    drop(data, "later.csv", [f"u{n},i39,5,{710 + n}" for n in (6, 8, 10, 12)])
    assert night(given).promotion.new_interactions == 6


def test_a_crippled_challenger_is_kept_out_and_the_published_set_stays_byte_for_byte(world):
    data, given = world
    before = content(folder_of("toy"))
    drop(data, "new.csv", new_rows(data, 10, 700))
    hopeless = {"embedding_size": 8, "train_batch_size": 64, "learning_rate": 50.0}
    crippled = given | {
        "models": {"BPR": {"hyperparameters": hopeless}},
        "training": {"epochs": 1, "valid_metric": "ndcg@5"},
    }
    ended = night(crippled)
    assert ended.decision == "kept"
    assert "reaches below −0.1000" in ended.reason
    assert content(folder_of("toy")) == before
    newest = promotions("toy")[0]
    assert newest["ci_low"] < -0.1
    assert newest["champion_mean"] - newest["challenger_mean"] == pytest.approx(
        -newest["difference"]
    )
    assert newest["champion_version"] == current("toy").version != newest["challenger_version"]
    # It was judged, so that the same data give no second try tomorrow.
    assert night(given).reason == "0 new interactions, 6 needed"


def test_a_training_that_fails_leaves_the_published_set_as_it_was(world):
    data, given = world
    before = content(folder_of("toy"))
    drop(data, "new.csv", new_rows(data, 10, 700))
    diverging = {"embedding_size": 8, "train_batch_size": 64, "learning_rate": 1e30}
    with pytest.raises(BadInput, match="no longer finite"):
        night(given | {"models": {"BPR": {"hyperparameters": diverging}}})
    assert content(folder_of("toy")) == before
    newest = promotions("toy")[0]  # no night without a row
    assert (newest["decision"], newest["challenger_version"]) == ("failed", None)
    assert "no longer finite" in newest["reason"]
    assert night(given).decision in ("published", "kept")  # the lock is free, the news still new


def test_one_per_cent_of_news_asks_about_changed_users_alone(world, server, tmp_path, monkeypatch):
    data, given = world
    server.clear()
    llm = FakeLLM(server)
    server.expect_request("/v1/chat/completions").respond_with_handler(llm.handle)
    monkeypatch.setenv("LLMKT_TEST_KEY", KEY)
    prompt = tmp_path / "mine.j2"
    prompt.write_text(TEMPLATE.replace("Likes", "Aged {{ user.age }}, likes"))
    asking = given | {
        "profiles": {
            "provider": "openai",
            "prompt": str(prompt),
            "history": {"demographics": ["age"]},
            "llm": {"base_url": llm.url, "api_key_env": "LLMKT_TEST_KEY"},
        }
    }
    night(asking, min_new_interactions=0, tolerance=1)
    assert current("toy").knowledge["profile_source"] == "openai"
    n_first = len(llm.requests)
    assert n_first == MEDIUM.n_users
    asked = [request["messages"][-1]["content"] for request in llm.requests]
    assert {f"Aged {20 + n}, likes" for n in range(50)} == {text.split(' "')[0] for text in asked}
    before = read_parquet(current("toy").inputs["interactions"])
    drop(data, "new.csv", new_rows(data, 6, 700))
    ended = night(asking, tolerance=1)
    assert ended.decision == "published"
    after = read_parquet(current("toy").inputs["interactions"])
    assert after.num_rows == before.num_rows + 6
    config = Pipeline.model_validate(asking).nightly.split
    histories = [_histories(split(table, config)[0]) for table in (before, after)]
    changed = {user for user in histories[1] if histories[1][user] != histories[0].get(user)}
    assert 0 < len(changed) <= 6
    assert len(llm.requests) - n_first == len(changed)
    assert ended.promotion.new_interactions == 6


def _histories(train) -> dict[str, set[str]]:
    items: dict[str, set[str]] = {}
    for user, item in zip(train["user_id"].to_pylist(), train["item_id"].to_pylist(), strict=True):
        items.setdefault(user, set()).add(item)
    return items


def test_new_users_and_items_a_warm_start_and_the_way_back(world):
    data, given = world
    was = current("toy").version
    stranger = [f"new,i{n},4,{720 + n}" for n in range(12)] + ["u0,unheard,5,740"]
    drop(data, "new.csv", [*new_rows(data, 10, 700), *stranger])
    ended = night(given, start="warm", tolerance=1)
    assert ended.decision == "published"
    assert ended.promotion.start == "warm"
    assert ended.promotion.refit == "users: kept"
    now = current("toy")
    assert (now.version, now.previous) == (ended.version, was)
    assert now.users_known == MEDIUM.n_users + 1
    items = pq.read_table(now.folder / "inputs" / "items.parquet")["item_id"].to_pylist()
    assert "unheard" in items
    assert rollback("toy")[1].version == was
    assert night(given).decision == "skipped"  # what was rolled back does not come again by itself
    assert current("toy").version == was


def test_a_champion_that_has_seen_the_holdout_is_judged_on_the_rest(world):
    data, given = world
    champion = current("toy")
    known = read_parquet(champion.handle("inputs/train.parquet"))
    # With these ratios half of what the champion learnt from is held out.
    early = given | {"nightly": given["nightly"] | {"split": {"ratios": [0.3, 0.1, 0.6]}}}
    ended = night(early, min_new_interactions=0, tolerance=1)
    config = Pipeline.model_validate(early).nightly.split
    held = split(read_parquet(champion.inputs["interactions"]), config)[2]
    pairs = [
        set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
        for table in (held, known, read_parquet(champion.handle("inputs/valid.parquet")))
    ]
    seen = len(pairs[0] & (pairs[1] | pairs[2]))
    assert seen > 100
    assert f"{seen} held-out interactions that the champion has learnt from" in ended.reason
    assert data.is_dir()


def test_a_champion_that_is_not_whole_stops_the_night(world):
    data, given = world
    drop(data, "new.csv", new_rows(data, 10, 700))
    path = current("toy").folder / "judged.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"cannot be judged: .* was altered.*champion rollback"):
        night(given)


def test_a_night_that_was_killed_before_it_was_recorded_is_recorded_by_the_next(world):
    data, given = world
    (data / "results.duckdb").unlink()
    assert night(given).decision == "skipped"
    assert [row["decision"] for row in promotions("toy")] == ["skipped", "published"]


def hold(taken) -> None:
    with alone("toy"):
        taken.set()
        signal.pause()


def test_a_clock_that_jumps_back_hides_no_night_and_counts_nothing_twice(world):
    data, given = world
    future = promotions("toy")[0]
    ahead = Promotion.model_validate(
        {**future, "experiment": "toy", "decided_at": future["decided_at"] + timedelta(days=400)}
    )
    record([ahead])
    drop(data, "new.csv", new_rows(data, 3, 700))
    ended = night(given)
    assert (ended.decision, ended.promotion.new_interactions) == ("skipped", 3)
    assert [row["decision"] for row in promotions("toy")] == ["skipped", "published", "published"]


def test_the_swap_on_a_full_disk_publishes_nothing_and_the_next_night_goes_on(world, monkeypatch):
    data, given = world
    before = content(folder_of("toy"))
    drop(data, "new.csv", new_rows(data, 10, 700))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.publishing.versions._point", full)
        with pytest.raises(OSError, match="No space"):
            night(given, tolerance=1)
    after = content(folder_of("toy"))
    assert {name: after[name] for name in before} == before
    assert promotions("toy")[0]["decision"] == "failed"
    ended = night(given, tolerance=1)
    assert (ended.decision, ended.promotion.new_interactions) == ("published", 10)
    states = {stage.name: stage.state for stage in ended.stages}
    assert states["refit"] == states["training"] == "cached"
    page = (data / "reports" / "toy-nights.html").read_text()
    assert page.count("<tr><td>") == len(promotions("toy")) == 3
    assert "No space left on device" in page


def test_two_nights_never_run_at_once_and_a_killed_one_leaves_no_lock(world):
    _, given = world
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    other = context.Process(target=hold, args=(taken,))
    other.start()
    try:
        assert taken.wait(600)
        with pytest.raises(BadInput, match="a nightly run of toy is at work"):
            night(given)
        os.kill(other.pid, signal.SIGKILL)
        other.join(600)
        assert night(given).decision == "skipped"
    finally:
        other.kill()


def test_the_commands(world, tmp_path):
    data, given = world
    config = tmp_path / "toy.yaml"
    config.write_text(json.dumps(given))
    llmkt = CliRunner()
    skipped = llmkt.invoke(app, ["nightly", str(config), "--json"])
    assert skipped.exit_code == 0, skipped.output
    last = json.loads(skipped.stdout.splitlines()[-1])
    assert {"stages", "decision", "version"} <= set(last)
    assert last["decision"] == "skipped"
    shown = json.loads(llmkt.invoke(app, ["champion", "show", "--json"]).stdout)
    assert shown["current"]["version"] == last["version"] == shown["versions"][0]
    assert [night["decision"] for night in shown["nights"]] == ["skipped", "published"]
    assert "first champion" in llmkt.invoke(app, ["champion", "show"]).stdout
    listed = json.loads(llmkt.invoke(app, ["recommend", "u3", "-k", "4", "--json"]).stdout)
    assert [row["rank"] for row in listed["items"]] == [1, 2, 3, 4]
    assert all(row["title"].startswith("Title") for row in listed["items"])
    assert listed["items"][0]["title"] in llmkt.invoke(app, ["recommend", "u3"]).stdout
    for arguments in (["recommend", "nobody"], ["champion", "rollback"]):
        assert llmkt.invoke(app, arguments).exit_code == 2
    assert data.is_dir()


def test_what_cannot_be_published_is_refused(world):
    _, given = world
    with pytest.raises(BadInput, match=r"nightly.k: 41 is larger than the number of items, 40"):
        night(given, k=41, min_new_interactions=0)
    liking = {"like_from": 4, "metrics": ["auc"], "primary": "auc"}
    likes = {"evaluation": liking, "training": {"valid_metric": "auc"}}
    with pytest.raises(BadInput, match=r"publishes rankings, not likes"):
        night(given | likes, min_new_interactions=0)
    with pytest.raises(BadInput, match=r"knowledge does not enter Pop\. Set nightly.arm to base"):
        night(given | {"models": {"Pop": {}}}, min_new_interactions=0)


def test_a_computed_model_waits_for_approval_since_its_lists_are_others(world):
    _, given = world
    was = current("toy")
    ended = night(
        given | {"models": {"Pop": {}}}, arm="baseline", min_new_interactions=0, tolerance=1
    )
    assert ended.decision == "needs approval"
    assert re.search(r"; but (coverage|tail share|overlap with yesterday's lists) 0", ended.reason)
    assert (ended.version, current("toy").version) == (was.version, was.version)
    waiting = ended.promotion.challenger_version
    refused = CliRunner().invoke(app, ["champion", "approve", was.version])
    assert refused.exit_code == 2
    assert "does not wait for approval" in " ".join(refused.output.split())
    assert waiting in CliRunner().invoke(app, ["champion", "show"]).output
    approved = CliRunner().invoke(app, ["champion", "approve", waiting, "--json"])
    assert json.loads(approved.stdout) == {"experiment": "toy", "was": was.version, "now": waiting}
    assert promotions("toy")[0]["decision"] == "published"
    now = current("toy")
    assert (now.anchor, was.anchor) == (waiting, was.version)  # a human has accepted its losses
    assert (now.job.model, now.job.arm) == ("Pop", "baseline")
    assert rollback("toy")[1].version == was.version
    assert "users.parquet" not in now.files
    assert now.vectors["users"].startswith("none")


def test_a_missing_artifact_is_named(world):
    assert world
    now = current("toy")
    (now.folder / "users.parquet").unlink()
    with pytest.raises(MissingArtifact, match=r"users\.parquet is gone"):
        now.verify()


def test_what_knowledge_adds_is_measured_beside_the_decision(world, monkeypatch):
    """Shadows decide nothing, start on equal terms, and their failure does no harm."""
    data, given = world
    told: list[tuple[str, str]] = []
    place = "tasks.nightly.knowledge_task.emit"
    monkeypatch.setattr(place, lambda event, _, why, __: told.append((event, why)))
    ended = night(given, tolerance=1, min_new_interactions=0, knowledge={"every": 1, "at_least": 1})
    first = ended.knowledge[0]
    assert [row["against"] for row in ended.knowledge] == ["baseline", "shuffled"]
    assert (first["nights"], first["decided_at"]) == (1, ended.promotion.decided_at)
    assert first["difference"] == first["running_difference"]
    arms = {stage.arm: stage.state for stage in ended.stages if stage.name == "training"}
    assert arms == {"transfer": "cached", "baseline": "ran", "shuffled": "ran"}
    assert [event for event, _ in told] == ["llmkt.alert.knowledge"] * 2
    assert "at least 1 is wanted" in told[0][1]
    assert ended.version == current("toy").version == promotions("toy")[0]["challenger_version"]
    drop(data, "b.csv", new_rows(data, 8, 800))
    again = night(given, tolerance=1, start="warm", knowledge={"every": 1, "at_least": -1})
    rows = measured("toy")
    assert [row["nights"] for row in rows] == [2, 2, 1, 1]
    mean = (rows[0]["difference"] + rows[2]["difference"]) / 2
    assert rows[0]["running_difference"] == pytest.approx(mean)
    assert rows[0]["running_ci_low"] < mean < rows[0]["running_ci_high"]
    assert rows[0]["cost_usd"] == 0.0  # offline texts
    assert again.promotion.start == "warm"
    trained = [stage for stage in again.stages if stage.arm == "transfer"]
    assert [stage.state for stage in trained] == ["ran", "ran"]  # and cold, to be compared
    assert len(told) == 2
    page = (data / "reports" / "toy-nights.html").read_text()
    assert page.count('<tr class="measured">') == 4
    assert "2 measured nights" in CliRunner().invoke(app, ["champion", "show"]).stdout

    def broken(*_):
        raise RuntimeError("no shadow tonight")

    monkeypatch.setattr(nightly_retrain_module, "is_due", broken)
    ended = night(given, tolerance=1, min_new_interactions=0)
    assert ended.decision == promotions("toy")[0]["decision"] == "published"
    assert ended.reason.endswith("; afterwards: no shadow tonight")


def test_knowledge_is_measured_after_every_nth_judged_challenger(data_dir):
    assert data_dir
    given = {"experiment": "tiny", "models": {"BPR": {}}}
    pipeline = Pipeline.model_validate(given | {"nightly": {"knowledge": {"every": 2}}})
    outcomes = ["published", "skipped", "kept", "failed", "needs approval"]
    rows = [row(str(n), None, decision=outcome) for n, outcome in enumerate(outcomes)]
    due = []
    for tonight in rows:
        record([tonight])
        due.append(is_due(pipeline, tonight))
    assert due == [False, False, True, True, True]
    store("knowledge", [{**measurement(), **rows[2].model_dump(include=set(KEYS))}])
    assert not is_due(pipeline, rows[4])
    never = pipeline.model_copy(
        update={"nightly": pipeline.nightly.model_copy(update={"arm": "baseline"})}
    )
    assert not is_due(never, rows[3])


KEYS = ("experiment", "decided_at")


def measurement() -> dict:
    words, numbers = ("model", "arm", "against", "metric"), ("difference", "ci_low", "ci_high")
    more = ("running_difference", "running_ci_low", "running_ci_high", "ci_level")
    counts = dict.fromkeys(("k", "users", "nights"), 2)
    known = dict.fromkeys(words, "x") | dict.fromkeys(numbers + more, 0.5) | counts
    return known | {"differences": [("u1", 0.5), ("u2", 0.5)]}
