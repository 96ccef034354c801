"""What profiles are written from, the record that proves it, and offline texts."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from models.config import History, Profiles
from models.profiles.offline_writer import lift, offline
from models.profiles.population import Population
from models.profiles.provenance import provenance, record
from models.profiles.user_history import describe, presentable, select
from models.schemas import PROFILES
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support.fake_llm import completion, config, data
from tests.support.toy_world import catalogue, train

pytest_plugins = ("tests.support.fake_llm",)


def chosen(table: pa.Table, **policy) -> list[str]:
    return select(table, History(**policy))["item_id"].to_pylist()


# Mean rating 3. c and d tie on rating, d is newer; e and f tie on rating and time.
ANN = train(
    ("ann", "a", 5, 10),
    ("ann", "b", 4, 20),
    ("ann", "c", 4, 30),
    ("ann", "d", 4, 40),
    ("ann", "f", 1, 50),
    ("ann", "e", 1, 50),
    ("ann", "g", 2, 60),
)


@pytest.mark.parametrize(
    ("order", "limit", "expected"),
    [
        ("newest", 4, "gefd"),
        ("newest", 9, "gefdcba"),
        ("best", 3, "adc"),
        ("stratified", 9, "adcbgef"),
        ("stratified", 4, "adef"),
        # The odd one goes to the best.
        ("stratified", 5, "adcef"),
        ("stratified", 1, "a"),
    ],
)
def test_policy_selects_by_rating_then_time_then_item(order, limit, expected):
    assert chosen(ANN, order=order, limit=limit) == list(expected)


def test_stratified_takes_the_newest_of_equally_bad_ones():
    table = train(("u", "a", 5, 0), ("u", "old", 1, 1), ("u", "new", 1, 2), ("u", "mid", 1, 1))
    assert chosen(table, limit=2) == ["a", "new"]


def test_stratified_takes_no_more_bad_ones_than_there_are():
    table = train(*[("u", f"i{n}", 5, n) for n in range(8)], ("u", "bad", 1, 0))
    assert chosen(table, limit=4) == ["i7", "i6", "i5", "bad"]


@pytest.mark.parametrize("order", ["newest", "best", "stratified"])
def test_without_ratings_every_policy_takes_the_newest(order):
    table = train(("u", "a", None, 1), ("u", "b", None, 3), ("u", "c", None, 2))
    assert chosen(table, order=order, limit=2) == ["b", "c"]


def test_without_ratings_and_times_items_decide():
    assert chosen(train(("u", "b"), ("u", "a"), ("u", "c")), limit=2) == ["a", "b"]


def test_users_are_sorted_and_limited_one_by_one():
    table = train(("9", "a", 1), ("10", "a", 1), ("9", "b", 5), ("9", "c", 3))
    picked = select(table, History(limit=2, order="best"))
    pairs = list(zip(picked["user_id"].to_pylist(), picked["item_id"].to_pylist(), strict=True))
    assert pairs == [("10", "a"), ("9", "b"), ("9", "c")]


def test_histories_describe_items():
    items = catalogue(
        ("a", "Matrix, The", 1999, ["Action", "Sci-Fi"]), ("b", None), ("c", " \x00\x07 ")
    )
    table = train(("u", "a", 4), ("u", "b", 3), ("u", "c", 2), ("u", "d", 1))
    described = describe(select(table, History()), presentable(items))
    assert described["title"].to_pylist() == ["The Matrix", "item b", "item c", "item d"]
    assert described["year"].to_pylist() == [1999, None, None, None]
    assert described["genres"].to_pylist() == [["Action", "Sci-Fi"], None, None, None]


def test_record_is_the_sha256_of_the_interactions_seen():
    table = train(("u", "b", 3.5, 7), ("u", "a", 4, None), ("v", "c"))
    seen = record(table)
    assert seen["user_id"].to_pylist() == ["u", "v"]
    assert seen["history_count"].to_pylist() == [2, 1]
    assert seen["history_sha256"].to_pylist() == [
        hashlib.sha256(b"a\t4\t\nb\t3.5\t7").hexdigest(),
        hashlib.sha256(b"c\t\t").hexdigest(),
    ]


def test_record_does_not_depend_on_row_order_or_chunks():
    shuffled = ANN.take(np.random.default_rng(0).permutation(ANN.num_rows))
    chunked = pa.concat_tables([shuffled.slice(0, 3), shuffled.slice(3)])
    assert record(chunked).equals(record(ANN))
    policy = History(limit=5)
    assert select(chunked, policy).equals(select(ANN, policy))


@pytest.mark.parametrize("change", [("ann", "a", 4, 10), ("ann", "a", 5, 11), ("ann", "z", 5, 10)])
def test_record_changes_with_every_field(change):
    changed = pa.concat_tables([train(change), ANN.slice(1)])
    assert record(changed)["history_sha256"] != record(ANN)["history_sha256"]


def written(selected: pa.Table, **columns) -> pa.Table:
    seen = record(selected)
    n = seen.num_rows
    base = {
        "user_id": seen["user_id"],
        "text": ["text"] * n,
        "missing_reason": [None] * n,
        "history_sha256": seen["history_sha256"],
        "history_count": seen["history_count"],
        "profile_key": ["key"] * n,
    }
    return pa.table(base | columns, schema=PROFILES)


def test_provenance_needs_every_record_to_match():
    selected = train(("u", "a", 5), ("v", "b", 3))
    right = record(selected)["history_sha256"].to_pylist()
    assert provenance(written(selected), record(selected)) == "train-only"
    for wrong in ([right[0], None], [right[0], right[0]], [None, None]):
        assert provenance(written(selected, history_sha256=wrong), record(selected)) == "unknown"
    assert provenance(written(selected, history_count=[1, 2]), record(selected)) == "unknown"
    assert provenance(written(selected, history_count=[1, None]), record(selected)) == "unknown"
    assert provenance(written(selected, user_id=["u", "w"]), record(selected)) == "unknown"


def test_provenance_ignores_users_without_text():
    selected = train(("u", "a", 5), ("v", "b", 3))
    missing = written(
        selected, text=["text", None], history_sha256=[record(selected)[1][0].as_py(), None]
    )
    assert provenance(missing, record(selected)) == "train-only"


def test_provenance_of_a_profile_that_saw_one_more_interaction_is_unknown():
    selected = train(("u", "a", 5))
    leaky = train(("u", "a", 5), ("u", "test", 5))
    assert provenance(written(leaky), record(selected)) == "unknown"


# Offline texts


def test_lift_is_observed_over_expected_shrunk_to_one():
    # Group 0 has 3 of 4 interactions, group 1 has 1 of 4; each user expects half of that.
    ratio = lift(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.array([2, 2]))
    expected = [[(2 + 4) / (1.5 + 4), (0 + 4) / (0.5 + 4)], [5 / 5.5, 5 / 4.5]]
    np.testing.assert_allclose(ratio, expected)


def world() -> tuple[pa.Table, pa.Table]:
    """Ann has seen 20 westerns of the 1950s and one comedy, Bob 20 comedies of the 1990s."""
    items = [(f"w{n:02}", f"Western {n}", 1950 + n % 10, ["Western"]) for n in range(20)]
    items += [(f"c{n:02}", f"Comedy {n}", 1990 + n % 10, ["Comedy", "unknown"]) for n in range(20)]
    rows = [("ann", f"w{n:02}", 5 if n == 7 else 4, n) for n in range(20)]
    rows += [("ann", "c00", 1, 99)]
    rows += [("bob", f"c{n:02}", 2 if n == 3 else 3, n) for n in range(20)]
    return train(*rows), catalogue(*items)


def texts(table: pa.Table, items: pa.Table, **policy) -> dict[str, str]:
    histories = describe(select(table, History(**policy)), presentable(items))
    everyone = Population.streamed(lambda: iter([histories]), histories, History())
    result = offline(histories, everyone)
    return dict(zip(result["user_id"].to_pylist(), result["text"].to_pylist(), strict=True))


def test_offline_texts_say_what_sets_users_apart():
    ann, bob = texts(*world()).values()
    assert ann.startswith("Loves Western. Avoids Comedy. Favourite eras: ")
    assert bob.startswith("Loves Comedy. Avoids Western. Favourite eras: ")
    assert "before 195" in ann
    assert "to 1999" in bob
    assert "Favourites: Western 7, Western 0, Western 1," in ann
    assert "Disliked: Comedy 0." in ann
    assert "Disliked: Comedy 3." in bob
    assert ann.endswith("ratings, 3.9 over 21 titles.")
    assert "unknown" not in bob


def test_habits_are_relative_to_the_other_users():
    # Means 5, 3, 3, 3, 1: their standard deviation is 1.26.
    table = train(("a", "x", 5), *[(user, "x", 3) for user in "bcd"], ("e", "x", 1))
    habits = [text.partition("item x. ")[2] for text in texts(table, catalogue()).values()]
    assert habits == [
        "Generous ratings, 5 over 1 title.",
        *["Average ratings, 3 over 1 title."] * 3,
        "Strict ratings, 1 over 1 title.",
    ]


def test_genres_are_ordered_by_lift():
    # Of 40 interactions 22 are Drama, 14 Crime, 10 War, 8 Noir. For u the ratios are
    # Noir (8+4)/(4+4) = 1.5, Crime (10+4)/(7+4) = 1.27, Drama (12+4)/(11+4) = 1.07,
    # War (0+4)/(5+4) = 0.44.
    def genres(n: int) -> list[str]:
        names = ["Drama"] * (n < 12) + ["Crime"] * (n < 10) + ["Noir"] * (n < 8)
        other = n - 20
        return (
            names
            if n < 20
            else ["Drama"] * (other < 10) + ["Crime"] * (other < 4) + ["War"] * (other < 10)
        )

    items = catalogue(*[(f"i{n:02}", None, None, genres(n)) for n in range(40)])
    table = train(*[("u" if n < 20 else "v", f"i{n:02}") for n in range(40)])
    assert texts(table, items)["u"].startswith("Likes Noir, Crime. Avoids War. Has chosen: ")


def test_offline_texts_see_only_what_the_policy_selects():
    table, items = world()
    ann = texts(table, items, limit=1)["ann"]
    assert "Favourites: Western 7. " in ann
    assert "over 1 title" in ann


@pytest.mark.parametrize("known", ["nothing", "titles"])
def test_offline_texts_do_without_ratings_times_and_metadata(known):
    items = catalogue(("a", "Heat")) if known == "titles" else catalogue()
    result = texts(train(("u", "a"), ("u", "b"), ("v", "b")), items)
    name = "Heat" if known == "titles" else "item a"
    assert result == {
        "u": f"Has chosen: item b, {name}. 2 titles.",
        "v": "Has chosen: item b. 1 title.",
    }


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_the_stage_writes_offline_profiles_with_their_record():
    table, items = world()
    handles = write_parquet("split", table), write_parquet("items", items)
    result = profiles.fn(Profiles(), "", *handles)
    found = read_parquet(result.profiles)
    assert found.schema.remove_metadata() == PROFILES
    assert found["text"].to_pylist() == list(texts(table, items).values())
    assert found["history_count"].to_pylist() == [21, 20]
    assert result.provenance == "train-only"
    assert (result.source, result.missing, result.cost_usd) == ("offline", 0, 0.0)
    assert read_parquet(result.calls).num_rows == 0
    assert profiles.fn(Profiles(), "another prompt", *handles) == result


@pytest.mark.usefixtures("data_dir", "no_run_logger")
def test_user_fields_reach_requests_only_when_asked_for_and_no_profile(llm):
    llm.default = lambda _: completion("Likes films.")
    handles = data("Heat")
    people = write_parquet(
        "demographics", pa.table({"user_id": ["user-0"], "age": ["24"], "job": ["astronaut"]})
    )
    template = """{% block user %}"{{ n_interactions }}"
    {% for name, value in user.items() %}{{ name }} {{ value }} {% endfor %}{% endblock %}"""

    def asked(*fields):
        settings = config(llm).model_copy(update={"history": History(demographics=fields)})
        result = profiles.fn(settings, template, *handles, None, "users", people)
        return result, str(llm.requests[-1]["messages"])

    _, plain = asked()
    assert "astronaut" not in plain
    assert "24" not in plain
    result, told = asked("job")
    assert "job astronaut" in told
    assert "age" not in told
    table = read_parquet(result.profiles)
    assert table.schema.remove_metadata() == PROFILES
    assert b"astronaut" not in result.profiles.file.read_bytes()
    assert "astronaut" not in str(table.to_pylist())
