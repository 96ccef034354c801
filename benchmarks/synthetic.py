"""Synthetic interactions of any number of users: power laws, titles, genres, years."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEWEST = 5
GENRES = tuple(f"Genre{n:02}" for n in range(30))
WORDS = 5_000
USERS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Size:
    """How many users, and how many interactions each has on average."""

    users: int
    each: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Of `USERSxEACH`; 100 each where only the users are named."""
        users, _, each = text.partition("x")
        return cls(int(users), int(each or 100))

    @property
    def items(self) -> int:
        """A tenth of the users, but never so few that a heavy user has them all."""
        return max(self.users // 10, 2_000)


def generate(size: Size, home: Path, seed: int = 1) -> int:
    """Write interactions.csv, sorted by time, and items.csv; returns the interactions."""
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    _write_items(size, home, rng)
    schema = pa.schema(
        [(name, pa.int64()) for name in ("user_id", "item_id", "rating", "timestamp")]
    )
    drawn, rows = home / "drawn.parquet", 0
    with pq.ParquetWriter(drawn, schema) as writer:
        for columns in interactions_of(size, rng):
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
            rows += len(columns[0])
    with duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(home)}) as connection:
        connection.execute(
            f"COPY (FROM '{drawn}' ORDER BY timestamp) TO '{home / 'interactions.csv'}'"
        )
    drawn.unlink()
    return rows


def interactions_of(
    size: Size, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Users, items, ratings and times, each int64 (n,), of some users at once; no pair twice."""
    popularity = 1 / np.arange(1, size.items + 1) ** 0.8
    upto = np.cumsum(popularity / popularity.sum())
    identity = rng.permutation(size.items)
    for start in range(0, size.users, USERS_AT_ONCE):
        n = min(USERS_AT_ONCE, size.users - start)
        # Lomax with a tail of 2.5 has the mean 1 / 1.5.
        activity = FEWEST + rng.pareto(2.5, n) * 1.5 * (size.each - FEWEST)
        counts = np.minimum(activity.round().astype(np.int64), size.items // 4)
        users = np.repeat(np.arange(start, start + n), counts + counts // 2 + 5)
        items = identity[np.minimum(np.searchsorted(upto, rng.random(len(users))), size.items - 1)]
        pairs = np.unique(users * size.items + items)
        users, items = pairs // size.items, pairs % size.items
        order = np.lexsort((rng.random(len(users)), users))
        first = np.searchsorted(users, np.arange(start, start + n))
        kept = np.sort(order[np.arange(len(users)) - first[users - start] < counts[users - start]])
        users, items = users[kept], items[kept]
        # Liking depends on user and item, so that ratings are no noise.
        liking = (users * 2_654_435_761 + items % len(GENRES) * 40_503) % 97 / 97
        ratings = np.clip((1 + 4 * liking + rng.normal(0, 0.7, len(users))).round(), 1, 5)
        times = rng.integers(1_000_000_000, 1_500_000_000, len(users))
        yield users, items, ratings.astype(np.int64), times


def _write_items(size: Size, home: Path, rng: np.random.Generator) -> None:
    import pyarrow as pa
    import pyarrow.csv as csv

    words = rng.integers(0, WORDS, (size.items, 3))
    titles = [f"Word{a} of Word{b} and Word{c} {n}" for n, (a, b, c) in enumerate(words)]
    genres = [
        "|".join(GENRES[(n + step) % len(GENRES)] for step in range(0, 3 * (1 + n % 3), 3))
        for n in range(size.items)
    ]
    years = 2015 - rng.gamma(2.0, 8.0, size.items).astype(np.int64)
    columns = [np.arange(size.items), titles, years, genres]
    table = pa.table(columns, ["item_id", "title", "year", "genres"])
    csv.write_csv(table, home / "items.csv")
