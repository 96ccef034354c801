"""Profiles of an earlier run: who keeps one, what proves it, and what that spares."""

import hashlib

import pyarrow as pa
import pytest

from models.config import History, Profiles
from models.errors import BadInput
from models.profiles.provenance import provenance
from models.profiles.user_history import whole
from models.schemas import INTERACTIONS, PROFILES
from tasks.llm import answer_run
from tasks.profiles.outputs import Profiled
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support.fake_llm import TEMPLATE, completion, config
from tests.support.toy_world import catalogue, train

pytest_plugins = ("tests.support.fake_llm",)
pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

N = 50
FILMS = catalogue(*[(f"film-{n}", f"Film {n}") for n in range(N)], ("new", "Novelty"))
BASE = [(f"user-{n:02}", f"film-{(n + k) % N}", 5 - k, 100 + k) for n in range(N) for k in range(4)]
ONE_PERCENT = [("user-07", "new", 3, 900), ("user-08", "new", 3, 900), ("user-99", "new", 5, 900)]


def run(settings, rows, earlier: Profiled | None = None, min_new=1, prompt=TEMPLATE) -> Profiled:
    table = train(*rows)
    parts = write_parquet("split", table), write_parquet("items", FILMS)
    previous = earlier and earlier.previous(min_new)
    return profiles.fn(settings, prompt, *parts, None, "users", None, previous)


def rows_of(result: Profiled) -> dict[str, dict]:
    return {row["user_id"]: row for row in read_parquet(result.profiles).to_pylist()}


def asked(llm) -> list[str]:
    return sorted(request["messages"][-1]["content"] for request in llm.requests)


def seen_of(result: Profiled, user: str) -> list[str]:
    rows = read_parquet(result.seen).to_pylist()
    return [row["item_id"] for row in rows if row["user_id"] == user]


TASTES = """{% block system %}Describe.{% endblock %}
{% block user %}Likes {% for h in history %}{{ h.title }}, {% endfor %}{% endblock %}"""


@pytest.mark.parametrize(("min_new", "calls", "kept"), [(1, 3, 48), (2, 1, 50)])
def test_one_percent_new_interactions_ask_for_changed_users_only(llm, min_new, calls, kept):
    first = run(config(llm), BASE, prompt=TASTES)
    assert (len(llm.requests), first.kept) == (N, 0)
    llm.requests.clear()
    second = run(config(llm), BASE + ONE_PERCENT, first, min_new, TASTES)
    assert len(llm.requests) == calls
    assert (second.answers_paid, second.answers_cached, second.kept) == (calls, 0, kept)
    assert second.provenance == "train-only"
    before, after = rows_of(first), rows_of(second)
    assert list(after) == sorted([*before, "user-99"])
    changed = {user for user in before if before[user] != after[user]}
    assert changed == ({"user-07", "user-08"} if min_new == 1 else set())
    assert "Novelty" in after["user-99"]["text"]
    assert read_parquet(second.profiles).schema.remove_metadata() == PROFILES
    assert read_parquet(second.seen).schema.remove_metadata() == INTERACTIONS


def test_new_interactions_add_up_over_the_nights(llm):
    one, two = ("user-07", "new", 3, 900), ("user-07", "film-30", 3, 901)
    first = run(config(llm), BASE)
    second = run(config(llm), [*BASE, one], first, 2)
    assert second.kept == N
    assert "new" not in seen_of(second, "user-07")
    third = run(config(llm), [*BASE, one, two], second, 2)
    assert third.kept == N - 1
    assert seen_of(third, "user-07")[-1] == "new"
    assert rows_of(third)["user-07"]["history_count"] == 6
    assert third.provenance == "train-only"


def test_the_record_of_a_kept_profile_is_over_what_it_saw(llm):
    first = run(config(llm), BASE)
    second = run(config(llm), BASE + ONE_PERCENT, first, 2)
    row = rows_of(second)["user-07"]
    lines = "film-10\t2\t103\nfilm-7\t5\t100\nfilm-8\t4\t101\nfilm-9\t3\t102"
    assert row["history_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert row["history_count"] == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,  # moved to valid or test
        lambda row: (*row[:2], 1, row[3]),
        lambda row: (*row[:3], 999),
    ],
    ids=["held out", "rated anew", "at another time"],
)
def test_a_profile_that_saw_what_is_no_training_interaction_is_written_anew(llm, change):
    first = run(config(llm), BASE)
    rows = [change(row) if row[:2] == ("user-07", "film-9") else row for row in BASE]
    second = run(config(llm), [row for row in rows if row], first, 9)
    assert second.kept == N - 1
    assert second.provenance == "train-only"
    assert (
        rows_of(second)["user-07"]["history_sha256"] != rows_of(first)["user-07"]["history_sha256"]
    )


def test_a_record_that_its_interactions_do_not_give_is_not_believed(llm):
    first = run(config(llm), BASE)
    table = read_parquet(first.profiles)
    hashes = table["history_sha256"].to_pylist()
    hashes[7] = hashes[8]
    forged = table.set_column(3, PROFILES.field(3), pa.array(hashes))
    claimed = first.model_copy(update={"profiles": write_parquet("profiles", forged)})
    second = run(config(llm), BASE, claimed)
    assert second.kept == N - 1
    assert rows_of(second) == rows_of(first)


def test_provenance_of_kept_profiles_can_fail():
    from models.profiles.reuse import keep

    table = train(*BASE)
    texts = pa.array(["text"] * N)
    seen = train(*BASE, ("user-07", "held-out", 5, 1))
    first = profiles_of(seen, texts)
    assert keep(first, seen, table, whole(History()), 9).profiles.num_rows == N - 1
    everything = keep(first, seen, seen, whole(History()), 9)
    assert everything.profiles.num_rows == N
    assert provenance(first, everything.proved) == "train-only"
    other = keep(profiles_of(table, texts), table, table, whole(History()), 9)
    assert provenance(first, other.proved) == "unknown"


def profiles_of(seen: pa.Table, texts: pa.Array) -> pa.Table:
    from models.profiles.provenance import record

    known = record(seen)
    nothing = pa.nulls(N, pa.string())
    columns = [known["user_id"], texts, nothing, *known.columns[1:], texts]
    return pa.table(dict(zip(PROFILES.names, columns, strict=True)), schema=PROFILES)


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [({"model": "other"}, TEMPLATE), ({}, TEMPLATE + " "), ({"temperature": 0.5}, TEMPLATE)],
)
def test_other_settings_keep_nothing(llm, settings, prompt):
    first = run(config(llm), BASE)
    second = run(config(llm, **settings), BASE, first, 9, prompt)
    assert second.kept == 0


def test_what_may_be_missing_is_a_share_of_all_users(llm):
    first = run(config(llm), BASE)
    later = [*BASE, ("user-99", "new", 5, 900)]
    llm.script["Novelty"] = [lambda _: completion(None, refusal="no")] * answer_run.ATTEMPTS
    second = run(config(llm, 0.02), later, first)
    assert (second.kept, second.missing) == (N, 1)
    assert rows_of(second)["user-99"]["text"] is None
    llm.script["Novelty"] = [lambda _: completion(None, refusal="no")] * answer_run.ATTEMPTS
    with pytest.raises(BadInput, match=r"1 of 51 profiles \(2.0%\).*max_missing allows 1.0%"):
        run(config(llm, 0.01), later, first)
    llm.requests.clear()
    third = run(config(llm), later, second)
    assert (third.kept, third.missing, len(llm.requests)) == (
        N,
        0,
        1,
    )  # who has no profile keeps none, and is asked for again


def test_offline_profiles_are_kept_too():
    first = run(Profiles(), BASE)
    assert first.seen == write_parquet("split", train(*BASE))
    second = run(Profiles(), BASE + ONE_PERCENT, first, 2)
    assert (second.kept, second.provenance, second.missing) == (N, "train-only", 0)
    assert rows_of(second)["user-07"] == rows_of(first)["user-07"]
    third = run(Profiles(), BASE + ONE_PERCENT, second, 1)
    assert third.kept == N - 1
    assert rows_of(third)["user-07"]["history_count"] == 5


def test_without_change_everything_is_kept_and_nothing_asked(llm):
    first = run(config(llm), BASE)
    llm.requests.clear()
    second = run(config(llm), BASE, first)
    assert (llm.requests, second.kept) == ([], N)
    assert rows_of(second) == rows_of(first)
    assert read_parquet(second.seen).equals(
        read_parquet(first.seen).sort_by([("user_id", "ascending"), ("item_id", "ascending")])
    )
