"""Profiles without an LLM: readable statistics of a user's training history.

The text is meant for a sentence embedder that reads a few hundred tokens: what sets the user
apart comes first (genres, eras), then titles, then habits. Everything is relative to the
population, because what all users share tells nothing about one of them.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Bools, Floats, Ints, codes, flat, joined, user_offsets
from models.profiles.population import Population
from models.profiles.user_history import ROUNDING, filled_ratings
from models.schemas import GENRES, ITEM, TEXT, TITLE, USER, YEAR

WRITER = "offline-v1"
"""Names the text's form; raise the number when the same history gives another text."""

FAVOURITES = 16
DISLIKED = 6

_PRIOR = 4.0
_STRONG, _SOME, _SELDOM = 1.5, 1.15, 0.75


def offline(history: pa.Table, population: Population) -> pa.Table:
    """Write the profile of every user in `history`, compared with those of `population`.

    `history` is the result of `models.profiles.user_history.describe`: what each profile may be
    written from. Ratings, timestamps, years and genres may be missing.

    Returns:
        `user_id` in sorted order and `text`, both strings, no nulls.
    """
    users, offsets = user_offsets(history)
    user = np.repeat(np.arange(len(users)), np.diff(offsets))
    sentences = [
        *_genres(history, user, len(users), population),
        *_eras(history, user, len(users), population),
        *_titles(history, user, len(users), population),
        _habits(history, user, len(users), population),
    ]
    space = pa.scalar(" ", pa.large_string())
    text = pc.binary_join_element_wise(*sentences, space, null_handling="skip")
    return pa.table({USER: users.cast(pa.string()), TEXT: text.cast(pa.string())})


def lift(groups: Ints, user: Ints, counts: Ints, totals: tuple[Ints, int] | None = None) -> Floats:
    """How much more often than the population a user meets each group: float64 (n_users, n_groups).

    The ratio of observed to expected interactions, shrunk towards 1 by a gamma prior of `_PRIOR`
    pseudo-interactions (DuMouchel 1999, "Bayesian data mining in large frequency tables"), so that
    few interactions prove little in either direction. `groups` and `user`, int64 (pairs,), pair
    each interaction with its groups; `counts`, int64 (n_users,), are interactions per user.
    `totals` are the population's pairs per group, int64 (n_groups,), and interactions; empty: those
    of the users given.
    """
    n_users = len(counts)
    n_groups = len(totals[0]) if totals else int(groups.max(initial=-1)) + 1
    cells = np.bincount(user * n_groups + groups, minlength=n_users * n_groups)
    observed = cells.reshape(n_users, n_groups).astype(np.float64)
    per_group, total = totals or (observed.sum(axis=0), counts.sum())
    expected = np.outer(counts / max(total, 1), per_group)
    return (observed + _PRIOR) / (expected + _PRIOR)


def _genres(history: pa.Table, user: Ints, n_users: int, population: Population) -> list[pa.Array]:
    lists = flat(history[GENRES])
    names = population.genres.cast(lists.type.value_type)
    group = pc.index_in(lists.flatten(), names)
    known = np.asarray(pc.is_valid(group))
    row = np.asarray(pc.list_parent_indices(lists)).astype(np.int64)[known]
    has_genre = np.zeros(len(user), dtype=bool)
    has_genre[row] = True
    with_genre = np.bincount(user[has_genre], minlength=n_users)
    groups = group.drop_null().to_numpy().astype(np.int64)
    totals = population.genre_counts, population.with_genre
    ratio = lift(groups, user[row], with_genre, totals)
    some = (ratio > _SOME) & (ratio <= _STRONG)
    return [
        _sentence("Loves", _best(ratio, ratio > _STRONG, 4, names)),
        _sentence("Likes", _best(ratio, some, 4, names)),
        _sentence("Avoids", _best(-ratio, ratio < _SELDOM, 4, names)),
    ]


def _eras(history: pa.Table, user: Ints, n_users: int, population: Population) -> list[pa.Array]:
    """Eras have equal weight in the population, so that a catalogue of one decade has some too."""
    if not len(population.eras):
        return []
    known = np.asarray(pc.is_valid(history[YEAR]))
    years = history[YEAR].drop_null().to_numpy()
    era = np.searchsorted(population.eras, years, side="right") - 1
    totals = population.era_counts, int(population.era_counts.sum())
    ratio = lift(era, user[known], np.bincount(user[known], minlength=n_users), totals)
    names = pa.array(_era_names(population.eras.tolist(), population.newest), pa.large_string())
    return [
        _sentence("Favourite eras:", _best(ratio, ratio > _SOME, 3, names)),
        _sentence("Few from", _best(-ratio, ratio < _SELDOM, 3, names)),
    ]


def _era_names(starts: list[int], newest: int) -> list[str]:
    ends = [start - 1 for start in starts[1:]] + [newest]
    names = [
        f"{start}" if start == end else f"{start} to {end}"
        for start, end in zip(starts, ends, strict=True)
    ]
    return [f"before {starts[1]}", *names[1:]] if len(starts) > 1 else names


def _titles(history: pa.Table, user: Ints, n_users: int, population: Population) -> list[pa.Array]:
    """Best and worst rated; among equals the best known, which says most to an embedder."""
    rating, item = filled_ratings(history, population.fill), codes(history[ITEM])
    known_as = pc.index_in(flat(history[ITEM]).cast(population.items.type), population.items)
    popularity = population.popularity[np.asarray(known_as)]
    counts = np.bincount(user, minlength=n_users)
    mean = (np.bincount(user, rating, minlength=n_users) / counts)[user]
    disliked = rating < np.minimum(mean, population.rating) - ROUNDING
    disliked &= population.rated
    titles = flat(history[TITLE])

    def first(eligible: Bools, best: Floats, most: int) -> pa.Array:
        row = np.flatnonzero(eligible)
        order = row[np.lexsort((item[row], -popularity[row], -best[row], user[row]))]
        counts = np.bincount(user[order], minlength=n_users)
        position = np.arange(len(order)) - (np.cumsum(counts) - counts)[user[order]]
        chosen = titles.take(pa.array(order[position < most]))
        return _listed(np.minimum(counts, most), chosen)

    opening = "Favourites:" if population.rated else "Has chosen:"
    return [
        _sentence(
            "Has chosen most often:" if population.counted else opening,
            first(~disliked, rating, FAVOURITES),
        ),
        _sentence("Disliked:", first(disliked, -rating, DISLIKED)),
    ]


def _habits(history: pa.Table, user: Ints, n_users: int, population: Population) -> pa.Array:
    counts = np.bincount(user, minlength=n_users)
    noun = pa.array(np.where(counts == 1, "title.", "titles."), pa.large_string())
    titles = _words(pa.array(counts).cast(pa.large_string()), noun)
    if population.counted:
        times = np.bincount(user, filled_ratings(history, population.fill)).round().astype(np.int64)
        shown = pa.array(times).cast(pa.large_string())
        return _words("Chosen", shown, "times in all:", titles)
    if not population.rated:
        return titles
    mean = np.bincount(user, filled_ratings(history, population.fill)) / counts
    distance, spread = mean - population.user_ratings.mean(), population.user_ratings.std()
    manner = np.where(distance > spread, "Generous ratings,", "Average ratings,")
    manner = np.where(distance < -spread, "Strict ratings,", manner)
    shown = pc.round(pa.array(mean), 1).cast(pa.large_string())
    return _words(pa.array(manner, pa.large_string()), shown, "over", titles)


def _best(score: Floats, eligible: Bools, most: int, names: pa.Array) -> pa.Array:
    """Per row, the names of the best scored eligible columns, best first."""
    order = np.argsort(np.where(eligible, -score, np.inf), axis=1, kind="stable")[:, :most]
    chosen = np.take_along_axis(eligible, order, axis=1)
    return _listed(chosen.sum(axis=1), names.take(pa.array(order[chosen])))


def _listed(counts: Ints, texts: pa.Array) -> pa.Array:
    """Runs of `counts` texts each as "A, B, C"; null where there are none."""
    offsets = np.concatenate(([0], np.cumsum(counts)))
    lists = joined(offsets, texts.cast(pa.large_string()), ", ")
    return pc.if_else(pa.array(counts > 0), lists, None)


def _words(*parts: str | pa.Array) -> pa.Array:
    """Join texts and columns of texts by spaces; null where one of them is."""
    large = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
    return pc.binary_join_element_wise(*large, pa.scalar(" ", pa.large_string()))


def _sentence(opening: str, lists: pa.Array) -> pa.Array:
    end = pa.scalar(".", pa.large_string()), pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(_words(opening, lists), *end)
