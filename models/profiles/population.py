"""What all users together do, which an offline profile compares one of them with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Floats, Ints, codes, flat
from models.config import History
from models.profiles.user_history import describe, filled_ratings, select
from models.schemas import GENRES, ITEM, RATING, USER, YEAR

_MOST_GENRES = 64
_PLACEHOLDERS = ("unknown", "no genres listed")
_ERAS = 8


@dataclass(frozen=True)
class Population:
    """Counts and means over all interactions that profiles are written from.

    Attributes:
        genres: the most frequent genres, string (n_genres,), the most frequent first.
        genre_counts: int64 (n_genres,), their interactions.
        with_genre: interactions with any of them.
        eras: int64 (n_eras,), the first year of each era; none where no year is known.
        era_counts: int64 (n_eras,), their interactions.
        newest: the newest year, 0 where none is known.
        items: string (n_items,), items with interactions.
        popularity: int64 (n_items,), their interactions.
        rated: whether there is any rating.
        fill: what stands in for a missing rating.
        rating: the mean rating, missing ones filled.
        counted: whether the data count rather than rate.
        user_ratings: float64 (n_users,), each user's mean rating, likewise.
    """

    genres: pa.Array
    genre_counts: Ints
    with_genre: int
    eras: Ints
    era_counts: Ints
    newest: int
    items: pa.Array
    popularity: Ints
    rated: bool
    fill: float
    rating: float
    user_ratings: Floats
    counted: bool = False

    @classmethod
    def streamed(
        cls, tables: Callable[[], Iterator[pa.Table]], catalogue: pa.Table, policy: History
    ) -> Self:
        """Of batches of whole users, sorted, of which one is held at a time; iterates twice.

        `policy` orders the interactions of tables that are not described yet.
        """
        counts, fill, n, rated = _counted(tables())
        items = pa.array(list(counts), pa.string())
        popularity = np.fromiter(counts.values(), np.int64, len(counts))
        row = pc.index_in(items, flat(catalogue[ITEM]).cast(pa.string()))
        years, genres = catalogue[YEAR].take(row), flat(catalogue[GENRES].take(row))
        means, total, order = _over_users(tables(), catalogue, genres, fill, policy)
        return cls(
            *_genres(genres, popularity, order),
            *_eras(years, popularity),
            items,
            popularity,
            rated and policy.feedback == "ratings",
            fill,
            rating=total / max(n, 1),
            user_ratings=means,
            counted=rated and policy.feedback == "counts",
        )


def _counted(tables: Iterator[pa.Table]) -> tuple[dict[str, int], float, int, bool]:
    """Interactions per item, the mean of known ratings, all interactions, whether any is rated."""
    counts, total, known, n = dict[str, int](), 0.0, 0, 0
    for table in tables:
        items, numbers = pc.value_counts(table[ITEM]).flatten()
        for item, count in zip(items.to_pylist(), numbers.to_pylist(), strict=True):
            counts[item] = counts.get(item, 0) + count
        total += pc.sum(table[RATING].cast(pa.float64())).as_py() or 0.0
        known += len(table) - table[RATING].null_count
        n += len(table)
    return counts, total / max(known, 1), n, known > 0


def _over_users(
    tables: Iterator[pa.Table], catalogue: pa.Table, genres: pa.Array, fill: float, policy: History
) -> tuple[Floats, float, list[str]]:
    """Mean ratings of users, the sum of all, and genres in the order in which they appear.

    The order decides between genres that are equally frequent. It is looked for only until all
    of them have appeared.
    """
    means, total, order = [np.empty(0)], 0.0, dict[str, None]()
    unseen = set(pc.unique(genres.flatten()).to_pylist())
    for table in tables:
        user = codes(table[USER])
        ratings = filled_ratings(table, fill)
        means.append(np.bincount(user, ratings) / np.bincount(user))
        total += float(ratings.sum())
        if unseen:
            is_described = GENRES in table.column_names
            rows = table if is_described else describe(select(table, policy, fill), catalogue)
            found = pc.unique(flat(rows[GENRES]).flatten()).to_pylist()
            order.update(dict.fromkeys(found))
            unseen.difference_update(found)
    return np.concatenate(means), total, list(order)


def _genres(genres: pa.Array, popularity: Ints, order: list[str]) -> tuple[pa.Array, Ints, int]:
    """The most frequent names, their interactions, and interactions with any of them.

    `order` holds all names, in the order that decides between equally frequent ones.
    """
    names = pa.array([name for name in order if name not in (None, *_PLACEHOLDERS)], pa.string())
    item = np.asarray(pc.list_parent_indices(genres)).astype(np.int64)
    group = pc.index_in(genres.flatten().cast(pa.string()), names)
    known = np.asarray(pc.is_valid(group))
    item, group = item[known], group.drop_null().to_numpy().astype(np.int64)
    counts = np.bincount(group, popularity[item], len(names)).astype(np.int64)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_GENRES]
    with_genre = int(popularity[np.unique(item[np.isin(group, frequent)])].sum())
    return names.take(pa.array(frequent)), counts[frequent], with_genre


def _eras(years: pa.ChunkedArray, popularity: Ints) -> tuple[Ints, Ints, int]:
    """First years of eras of equal weight, their interactions, and the newest year."""
    known = np.asarray(pc.is_valid(years))
    year = years.drop_null().to_numpy().astype(np.int64)
    if not len(year):
        return np.empty(0, np.int64), np.empty(0, np.int64), 0
    values, place = np.unique(year, return_inverse=True)
    upto = np.cumsum(np.bincount(place, popularity[known]).astype(np.int64))
    # The quantiles k/8 of all interactions, the higher one where they fall between two.
    ranks = np.ceil((upto[-1] - 1) * (np.arange(_ERAS) / _ERAS)).astype(np.int64)
    starts = np.unique(values[np.searchsorted(upto, ranks, side="right")])
    era = np.searchsorted(starts, year, side="right") - 1
    counts = np.bincount(era, popularity[known], len(starts)).astype(np.int64)
    return starts, counts, int(values[-1])
