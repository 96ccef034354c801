"""What a profile is written from: a user's training history, and what is known of its items."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Floats, codes, flat
from models.config import History
from models.schemas import GENRES, ITEM, RATING, TIMESTAMP, TITLE, USER, YEAR

LONGEST_TITLE = 120
LONGEST_GENRE = 32
ROUNDING = 1e-6
"""Ratings are compared with means; a rating equal to its mean must not fall on either side."""

_UNPRINTABLE = r"[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Z}]+"
_NO_VALUE = r"[^\p{L}\p{M}\p{N} '&+/.,-]"
_NO_WORD = r"[^\p{L}\p{M}\p{N} '&+/-]"
_TRAILING_ARTICLE = r"^(.+), (The|A|An)( \(.*)?$"


def select(train: pa.Table, policy: History, fill: float | None = None) -> pa.Table:
    """Choose each user's interactions in `train`, schema `INTERACTIONS`, whole users.

    Ties go to the newer interaction, then to the smaller item id. An interaction without rating
    counts as average, `fill` or that of `train`, so that data without ratings falls back to the
    newest.

    Returns:
        Rows of `train`: users in sorted order, within a user the newest first (newest) or the best
        rated first (best, stratified).
    """
    users, items = codes(train[USER]), codes(train[ITEM])
    counts = np.bincount(users)
    time = train[TIMESTAMP].fill_null(0).to_numpy()
    rating = np.zeros(len(users)) if policy.order == "newest" else filled_ratings(train, fill)
    low = rating < (np.bincount(users, rating) / np.maximum(counts, 1))[users] - ROUNDING
    if policy.feedback == "counts":
        low[:] = False  # Who chose an item seldom does not dislike it.

    worst = np.zeros_like(counts)
    if policy.order == "stratified":
        worst = np.minimum(np.bincount(users[low], minlength=len(counts)), policy.limit // 2)
    # The newest of equally rated items stand outermost at both ends of a user's list.
    order = np.lexsort((items, np.where(low, time, -time), -rating, users))
    users = users[order]
    position = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    best = position < (policy.limit - worst)[users]
    return train.take(pa.array(order[best | (position >= (counts - worst)[users])]))


def whole(policy: History) -> History:
    """Return the policy without its limit: all interactions of a user, in its order."""
    return policy.model_copy(update={"limit": sys.maxsize})


def presentable(items: pa.Table) -> pa.Table:
    """`items` (schema `ITEMS`) with titles and genres made fit for a text.

    They are data from outside: control characters go and lengths are bounded; a text that is
    empty then becomes null. "Matrix, The" becomes "The Matrix".
    """
    titles = pc.replace_substring_regex(
        _clean(items[TITLE], LONGEST_TITLE), _TRAILING_ARTICLE, r"\2 \1\3"
    )
    columns = {ITEM: items[ITEM], TITLE: titles, YEAR: items[YEAR]}
    return pa.table({**columns, GENRES: _clean_genres(items[GENRES])})


def describe(selected: pa.Table, catalogue: pa.Table) -> pa.Table:
    """Add `title`, `year` and `genres` to interactions; rows and their order stay.

    `catalogue` is the result of `presentable`; an item without title there becomes `item ID`.
    """
    row = pc.index_in(selected[ITEM], catalogue[ITEM])
    name = _clean(pc.binary_join_element_wise("item", selected[ITEM], " "), LONGEST_TITLE)
    return (
        selected.append_column(TITLE, pc.coalesce(catalogue[TITLE].take(row), name))
        .append_column(YEAR, catalogue[YEAR].take(row))
        .append_column(GENRES, catalogue[GENRES].take(row))
    )


def masked(described: pa.Table) -> pa.Table:
    """Put genres and year in place of titles, which an LLM would know items by.

    A `title` is then such as `Drama, War, 1958`, or `item` where neither is known; `year` and
    `genres` of their own are null, so that no prompt says them twice.
    """
    genres = pc.binary_join(described[GENRES].cast(pa.list_(pa.string())), ", ")
    genres = pc.if_else(pc.not_equal(genres, ""), genres, None)
    year = described[YEAR].cast(pa.string())
    # Not null_handling="skip": where all are null it loses rows (pyarrow 26).
    both = pc.binary_join_element_wise(genres, year, ", ")
    label = pc.coalesce(both, genres, year, "item")
    n, kept = described.num_rows, dict(zip(described.column_names, described.columns, strict=True))
    nothing = {YEAR: pa.nulls(n, pa.int32()), GENRES: pa.nulls(n, pa.list_(pa.string()))}
    return pa.table(kept | {TITLE: label} | nothing)


def presentable_fields(people: pa.Table) -> pa.Table:
    """Demographic fields as words and numbers: they stand unquoted in a prompt, like genres."""
    columns = [
        _clean(pc.replace_substring_regex(column, _NO_VALUE, " "), LONGEST_GENRE)
        for column in people.columns
    ]
    return pa.Table.from_arrays(columns, people.column_names)


def filled_ratings(interactions: pa.Table, fill: float | None = None) -> Floats:
    """Ratings, float64 (rows,), with `fill` for missing ones: else the mean, 0 if all miss."""
    if fill is None:
        fill = pc.mean(interactions[RATING]).as_py() or 0.0
    ratings = interactions[RATING].cast(pa.float64()).fill_null(fill)
    return np.asarray(ratings, dtype=np.float64)


def _clean(texts: pa.ChunkedArray | pa.Array, longest: int) -> pa.ChunkedArray | pa.Array:
    """Printable text on one line; null where nothing is left."""
    texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, _UNPRINTABLE, " "))
    texts = pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(texts, 0, longest))
    return pc.if_else(pc.not_equal(texts, ""), texts, None)


def _clean_genres(genres: pa.ChunkedArray) -> pa.Array:
    """Words only: a genre stands unquoted in a prompt, so it keeps no quotes or markup."""
    lists = flat(genres)
    words = pc.replace_substring_regex(lists.flatten(), _NO_WORD, " ")
    words = _clean(words, LONGEST_GENRE)
    row = np.asarray(pc.list_parent_indices(lists))[np.asarray(pc.is_valid(words))]
    counts = np.bincount(row.astype(np.int64), minlength=len(lists))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, words.drop_null(), mask=pc.is_null(lists))
