"""Items as profiles see them: what they are, who chose them, and what else these users chose.

Everything but an item's own title, year and genres comes from training interactions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from models.arrow import Floats, Ints, codes, distinct, words
from models.profiles.offline_writer import lift
from models.profiles.user_history import describe, filled_ratings, presentable
from models.schemas import GENRES, ITEM, RATING, TITLE, USER, YEAR

WRITER = "offline-items-v2"
"""Names the text's form; raise the number when the same item gets another text."""

_SHRINK = 10.0
_AUDIENCE_GENRES = 3
_PRONOUNCED = 1.15
_CELLS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Subjects:
    """Items, sorted by id, and what is known of each.

    Those of the training part; of the whole catalogue where interactions say nothing.

    Attributes:
        described: `item_id`, `title`, `year`, `genres`, made presentable.
        companions: int64 (n_items, most), rows of the items that the same users chose, the most
            similar first; -1 where there are no more.
        audience: per item the genres that its users prefer more than others do, best first.
        n_users: int64 (n_items,), how many users chose it; 0 where that stays unsaid.
        mean_rating: float64 (n_items,), NaN without ratings.
        counted: whether the data count rather than rate.
    """

    described: pa.Table
    companions: Ints
    audience: list[list[str]]
    n_users: Ints
    mean_rating: Floats
    counted: bool = False


def subjects(train: pa.Table, items: pa.Table, most: int, counted: bool = False) -> Subjects:
    """Collect what profiles of items may be written from: `most` companions per item.

    0 leaves out everything that interactions say. Where they are `counted` rather than rated, who
    chose an item is taken to like it.
    """
    tokens = distinct(train[ITEM] if most else items[ITEM])
    described = describe(pa.table({ITEM: tokens}), presentable(items))
    if not most:
        n = len(tokens)
        nobody: list[list[str]] = [[] for _ in range(n)]
        alone = np.full((n, 0), -1, np.int64), nobody, np.zeros(n, np.int64), np.full(n, np.nan)
        return Subjects(described, *alone)
    item, user = codes(train[ITEM]), codes(train[USER])
    rating = filled_ratings(train)
    n_users = np.bincount(item)
    mean = np.bincount(item, rating) / np.maximum(n_users, 1)
    if counted or train[RATING].null_count == train.num_rows:
        mean = np.full(len(mean), np.nan)
    liked = (rating >= (np.bincount(user, rating) / np.bincount(user))[user]) | counted
    likes = csr_matrix(
        (np.ones(int(liked.sum()), np.float32), (user[liked], item[liked])),
        shape=(int(user.max()) + 1, len(tokens)),
    )
    companions, audience = _companions(likes, most), _audience(likes, described)
    return Subjects(described, companions, audience, n_users, mean, counted)


def _companions(likes: csr_matrix, most: int) -> Ints:
    """Most similar items by the cosine of who liked them, shrunk where few did.

    The shrinkage n / (n + 10) is that of item-based collaborative filtering (Bell and Koren 2007,
    "Improved neighborhood-based collaborative filtering", section 3).
    """
    n_items = likes.shape[1]
    most = min(most, n_items - 1)
    norms = np.sqrt(np.maximum(np.asarray(likes.sum(axis=0)).ravel(), 1.0))
    block = max(_CELLS_AT_ONCE // max(n_items, 1), 1)
    found = np.full((n_items, most), -1, dtype=np.int64)
    for start in range(0, n_items if most else 0, block):
        together = np.asarray((likes[:, start : start + block].T @ likes).todense())
        rows = np.arange(len(together))
        together[rows, start + rows] = 0.0
        cosine = together / (norms[start : start + block, None] * norms)
        similar = cosine * (together / (together + _SHRINK))
        best = np.argsort(-similar, axis=1, kind="stable")[:, :most]
        is_similar = np.take_along_axis(similar, best, axis=1) > 0
        found[start : start + block] = np.where(is_similar, best, -1)
    return found


def _audience(likes: csr_matrix, described: pa.Table) -> list[list[str]]:
    """Genres that the likers of an item like more than all users do, other than its own."""
    has, names = words(described, GENRES)
    if not names:
        return [[] for _ in range(described.num_rows)]
    pairs = likes.tocoo()
    user_genres = has[pairs.col].tocoo()
    taste = lift(
        user_genres.col.astype(np.int64),
        pairs.row[user_genres.row].astype(np.int64),
        np.bincount(pairs.row, minlength=likes.shape[0]),
    )
    counts = np.maximum(np.asarray(likes.sum(axis=0)).ravel(), 1.0)
    liking = np.asarray(likes.T @ np.log(taste)) / counts[:, None]
    liking[np.asarray(has.todense()) > 0] = -np.inf
    best = np.argsort(-liking, axis=1, kind="stable")[:, :_AUDIENCE_GENRES]
    strong = np.take_along_axis(liking, best, axis=1) > np.log(_PRONOUNCED)
    return [
        [names[column] for column, kept in zip(row, keep, strict=True) if kept]
        for row, keep in zip(best.tolist(), strong.tolist(), strict=True)
    ]


def values(known: Subjects) -> list[dict[str, Any]]:
    """What an item prompt may use, per item (see `models.profiles.prompt_templates`)."""
    described = known.described.select([TITLE, YEAR, GENRES]).to_pylist()
    rows = [{**row, GENRES: row[GENRES] or []} for row in described]
    counts, means = known.n_users.tolist(), known.mean_rating.tolist()
    facts = zip(rows, known.companions.tolist(), known.audience, counts, means, strict=True)
    return [
        {
            **row,
            "companions": [rows[place] for place in places if place >= 0],
            "audience": audience,
            "n_users": n_users or None,
            "mean_rating": None if np.isnan(mean) else mean,
        }
        for row, places, audience, n_users, mean in facts
    ]


def offline(known: Subjects) -> list[str]:
    """Every item's profile without an LLM, in the order of `known.described`.

    What it is comes first, then whose taste it meets: an embedder weighs the beginning most.
    """
    popular = np.quantile(known.n_users, (0.5, 0.9))
    return [_text(row, popular, known.counted) for row in values(known)]


def _text(row: dict[str, Any], popular: Floats, counted: bool) -> str:
    companions = ", ".join(other["title"] for other in row["companions"])
    seen = ""
    if row["n_users"] is not None:
        seen = ("Little known", "Known", "Very well known")[int((row["n_users"] > popular).sum())]
        seen += (
            "." if row["mean_rating"] is None else f", rated {row['mean_rating']:.1f} on average."
        )
    chosen, likes = ("Chosen", "chooses") if counted else ("Liked", "likes")
    sentences = [
        f"{row['title']}" + (f" ({row['year']})." if row["year"] else "."),
        f"{', '.join(row['genres'])}." if row["genres"] else "",
        f"{chosen} together with: {companions}." if companions else "",
        f"Its audience also {likes}: {', '.join(row['audience'])}." if row["audience"] else "",
        seen,
    ]
    return " ".join(sentence for sentence in sentences if sentence)
