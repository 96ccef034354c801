"""The split: exact counts, no overlap, no dependence on row order, clear errors."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from models.config import Split
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEM, TIMESTAMP, USER
from models.split import split


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
