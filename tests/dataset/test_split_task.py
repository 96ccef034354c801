"""The split: exact counts, no overlap, no dependence on row order, clear errors."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from models.config import Split
from models.dataset.splitting import split
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEM, TIMESTAMP, USER
from tasks.dataset.split_task import split as stage
from tasks.dataset.split_task import split_files
from tasks.storage.artifacts import read_parquet, write_parquet


def table(histories: dict[str, list[int]]) -> pa.Table:
    """Interactions of users with the given timestamps; the n-th has item iN."""
    rows = [
        {USER: user, ITEM: f"i{n:02}", "rating": 3.0, TIMESTAMP: time}
        for user, times in histories.items()
        for n, time in enumerate(times)
    ]
    return pa.Table.from_pylist(rows, schema=INTERACTIONS)


def pairs(part: pa.Table) -> set[tuple[str, str]]:
    return set(zip(part[USER].to_pylist(), part[ITEM].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("n", "expected"), [(3, (1, 1, 1)), (10, (7, 1, 2)), (19, (15, 1, 3)), (20, (14, 2, 4))]
)
def test_random_gives_each_user_its_share(n, expected):
    parts = split(table({"a": list(range(n))}), Split())
    assert tuple(part.num_rows for part in parts) == expected


def test_parts_are_disjoint_and_complete():
    whole = table({f"u{i}": list(range(3 + i)) for i in range(30)})
    for strategy in ("random", "leave-one-out", "temporal"):
        parts = split(whole, Split(strategy=strategy))
        train, valid, test = map(pairs, parts)
        assert train | valid | test == pairs(whole)
        assert len(train) + len(valid) + len(test) == whole.num_rows


def test_random_depends_on_the_seed_and_not_on_row_order():
    whole = table({f"u{i}": list(range(12)) for i in range(10)})
    shuffled = whole.take(pa.array(np.random.default_rng(0).permutation(whole.num_rows)))
    assert split(whole, Split())[2].equals(split(shuffled, Split())[2])
    assert pairs(split(whole, Split())[2]) != pairs(split(whole, Split(seed=1))[2])


def test_leave_one_out_holds_out_the_newest():
    whole = table({"a": [50, 10, 40, 30], "b": [1, 2, 2]})
    train, valid, test = map(pairs, split(whole, Split(strategy="leave-one-out")))
    assert test == {("a", "i00"), ("b", "i02")}  # a tie of b goes by item id
    assert valid == {("a", "i02"), ("b", "i01")}
    assert train == {("a", "i01"), ("a", "i03"), ("b", "i00")}


def test_temporal_lets_nothing_newer_into_training():
    rng = np.random.default_rng(1)
    whole = table({f"u{i}": rng.integers(0, 1000, 20).tolist() for i in range(20)})
    parts = split(whole, Split(strategy="temporal", ratios=(0.6, 0.2, 0.2)))
    spans = [(min(p[TIMESTAMP].to_pylist()), max(p[TIMESTAMP].to_pylist())) for p in parts]
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert parts[0].num_rows == pytest.approx(240, abs=8)


def test_whole_items_are_cold_whatever_else_is_there():
    rng = np.random.default_rng(2)
    whole = table({f"u{i}": rng.integers(0, 9, 300).tolist() for i in range(9)})
    config = Split(strategy="cold-items", ratios=(0.6, 0.2, 0.2))
    parts = [set(part[ITEM].to_pylist()) for part in split(whole, config)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 300
    assert len(parts[0]) == pytest.approx(180, abs=25)
    assert len(parts[2]) == pytest.approx(60, abs=25)
    half = whole.filter(pc.field(USER) < "u5")
    assert set(split(half, config)[2][ITEM].to_pylist()) == parts[2]
    other = Split(strategy="cold-items", ratios=(0.6, 0.2, 0.2), seed=1)
    assert set(split(whole, other)[2][ITEM].to_pylist()) != parts[2]


def test_new_users_keep_a_few_interactions_and_others_all():
    rng = np.random.default_rng(4)
    histories = {f"u{n}": rng.integers(0, 99, 8 + n % 5).tolist() for n in range(300)}
    whole = table(histories | {"single": [1]})
    before = set[tuple[str, str]]()
    for limit in (1, 3):
        config = Split(strategy="cold-users", train_limit=limit, short_histories="drop")
        train, valid, test = split(whole, config)
        new = [set(part[USER].to_pylist()) for part in (valid, test)]
        assert not new[0] & new[1]
        assert [len(users) for users in new] == pytest.approx([30, 60], abs=20)
        counts = Counter(train[USER].to_pylist())
        kept = {u: limit if u in new[0] | new[1] else len(h) for u, h in histories.items()}
        assert counts == kept
        assert len(pairs(train) | pairs(valid) | pairs(test)) == sum(map(len, histories.values()))
        again = split(whole, config.model_copy(update={"seed": 1}))
        assert set(again[2][USER].to_pylist()) == new[1]  # other interactions of the same users
        assert pairs(again[2]) != pairs(test)
        few = {pair for pair in pairs(train) if pair[0] in new[0] | new[1]}
        assert before <= few
        before = few
    with pytest.raises(ValueError, match="cold-users needs train_limit; set it"):
        Split(strategy="cold-users")


@pytest.mark.parametrize("strategy", ["random", "temporal", "cold-items"])
def test_short_training_histories_are_nested_and_leave_the_rest(strategy):
    rng = np.random.default_rng(3)
    whole = table({f"u{i}": rng.integers(0, 1000, 10 + i).tolist() for i in range(20)})
    full = split(whole, Split(strategy=strategy))
    smaller: set[tuple[str, str]] = set()
    for limit in (1, 3, 6, 100):
        train, valid, test = split(whole, Split(strategy=strategy, train_limit=limit))
        assert valid.equals(full[1])
        assert test.equals(full[2])
        assert smaller <= pairs(train) <= pairs(full[0])
        counts = Counter(full[0][USER].to_pylist())
        assert Counter(train[USER].to_pylist()) == {u: min(n, limit) for u, n in counts.items()}
        smaller = pairs(train)
    assert smaller == pairs(full[0])


def test_short_histories_stop_stay_or_go():
    whole = table({"long": list(range(10)), "single": [5], "two": [1, 2]})
    with pytest.raises(BadInput, match=r"2 of 3 users .* user single \(1\), two \(2\)"):
        split(whole, Split())
    kept = split(whole, Split(short_histories="train"))
    assert {"single", "two"} <= set(kept[0][USER].to_pylist())
    assert set(kept[1][USER].to_pylist()) == {"long"}
    dropped = split(whole, Split(short_histories="drop"))
    assert set(dropped[0][USER].to_pylist()) == {"long"}


def test_missing_timestamps_are_named():
    whole = table({"a": [1, 2, 3]})
    whole = whole.set_column(3, TIMESTAMP, pa.array([1, None, 3], pa.int64()))
    with pytest.raises(BadInput, match="1 of 3 interactions have no timestamp"):
        split(whole, Split(strategy="temporal"))
    assert split(whole, Split())[0].num_rows == 1


# A split given as files

WHOLE = {f"u{n}": list(range(10)) for n in range(4)}


def given(folder, header=None, **parts):
    """Files of user-item pairs."""
    paths = {}
    for part, rows in parts.items():
        path = folder / f"{part}.tsv"
        lines = [f"{user}\t{item}\t4\t881250949" for user, item in rows]
        path.write_text("\n".join(([header] if header else []) + lines) + "\n")
        paths[part] = str(path)
    return paths


def by_files(paths, whole=None, **settings):
    config = Split.model_validate({"strategy": "files"} | paths | settings)
    handle = write_parquet("interactions", table(whole or WHOLE))
    done = stage.fn(config, handle, split_files(config))
    return [read_parquet(getattr(done, part)) for part in ("train", "valid", "test")]


def rows(*items, users=4):
    return [(f"u{user}", f"i{item:02}") for user in range(users) for item in items]


@pytest.fixture
def _stage(data_dir, no_run_logger):
    """A data folder for the stage."""


@pytest.mark.usefixtures("_stage")
@pytest.mark.parametrize(
    "header",
    [None, "user_id:token\titem_id:token\trating:float\ttimestamp:float", "user\titem\tr\tt"],
)
def test_files_decide_the_parts(tmp_path, header):
    paths = given(tmp_path, header, train=rows(1, 2, 3), valid=rows(4), test=rows(7, 8, users=2))
    parts = by_files(paths)
    assert [pairs(part) for part in parts] == [
        set(rows(1, 2, 3)),
        set(rows(4)),
        set(rows(7, 8, users=2)),
    ]
    # Ratings and times are the data set's own.
    assert set(parts[0]["rating"].to_pylist()) == {3.0}
    assert set(parts[1][TIMESTAMP].to_pylist()) == {4}


@pytest.mark.usefixtures("_stage")
def test_valid_is_held_out_of_train_by_share_and_seed(tmp_path):
    paths = given(tmp_path, train=[*rows(0, 1, 2, 3, 4), ("lone", "i00")], test=rows(8))
    whole = WHOLE | {"lone": [1, 2]}
    train, valid, test = by_files(paths, whole, valid_share=0.4)
    assert pairs(train) | pairs(valid) == {*rows(0, 1, 2, 3, 4), ("lone", "i00")}
    assert train.num_rows + valid.num_rows == 21
    assert sorted(valid[USER].to_pylist()) == sorted([f"u{n}" for n in range(4)] * 2)
    assert pairs(test) == set(rows(8))
    again, other = (by_files(paths, whole, valid_share=0.4, seed=s)[1] for s in (2026, 5))
    assert again.equals(valid)
    assert pairs(other) != pairs(valid)


@pytest.mark.usefixtures("_stage")
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"train": rows(1, 2), "test": [*rows(3), ("u1", "i02")]},
            r"split\.test: 1 user-item pairs are in split\.train as well: u1 i02\. Keep",
        ),
        (
            {"train": rows(1, 2), "valid": rows(3), "test": rows(3)},
            r"split\.test: 4 user-item pairs are in split\.valid as well: u0 i03, u1 i03,",
        ),
        (
            {"train": [*rows(1, 2), ("u1", "i01")], "test": rows(3)},
            r"split\.train: 1 user-item pairs are listed more than once: u1 i01",
        ),
        (
            {"train": [*rows(1, 2), *[("u9", f"i{n}") for n in range(11)]], "test": rows(3)},
            r"split\.train: 11 of 19 user-item pairs are not in the data set: u9 i0, .*u9 i9, …\.",
        ),
        (
            {"train": rows(1, 2, users=3), "test": rows(3)},
            r"1 users are in valid or test without a training interaction: u3\. .*drop",
        ),
        ({"train": [("u0", "i01")], "test": rows(3, users=1)}, r"leave train, valid or test empty"),
    ],
)
def test_faulty_files_are_refused(tmp_path, parts, message):
    with pytest.raises(BadInput, match=message):
        by_files(given(tmp_path, **parts))


@pytest.mark.usefixtures("_stage")
def test_users_without_training_interactions_may_be_left_out(tmp_path):
    paths = given(tmp_path, train=rows(1, 2, users=3), test=rows(3))
    parts = by_files(paths, short_histories="drop")
    assert set(parts[2][USER].to_pylist()) == {"u0", "u1", "u2"}


@pytest.mark.usefixtures("_stage")
def test_the_content_of_the_files_decides_and_not_their_path(tmp_path):
    paths = given(tmp_path, train=rows(1, 2), test=rows(3))
    (tmp_path / "moved").mkdir()
    moved = given(tmp_path / "moved", train=rows(1, 2), test=rows(3))
    first, second = (Split.model_validate({"strategy": "files"} | p) for p in (paths, moved))
    assert first.digest() == second.digest()
    assert split_files(first) == split_files(second)


@pytest.mark.usefixtures("_stage")
@pytest.mark.parametrize(
    ("content", "message"),
    [("1,2,3\n", r"split\.train: a line must hold user and item"), ("1\t\t3\n", r"row 1: item_id")],
)
def test_files_of_another_form_are_refused(tmp_path, content, message):
    paths = given(tmp_path, train=[], test=rows(3))
    (tmp_path / "train.tsv").write_text(content)
    with pytest.raises(BadInput, match=message):
        by_files(paths)


def test_a_split_by_files_needs_its_files(tmp_path):
    with pytest.raises(ValueError, match="needs train and test"):
        Split(strategy="files", train="x.tsv")
    with pytest.raises(ValueError, match="for strategy files only"):
        Split(train="x.tsv")
    with pytest.raises(BadInput, match=r"split\.train: .*none\.tsv does not exist"):
        split_files(Split(strategy="files", train=str(tmp_path / "none.tsv"), test="x.tsv"))
