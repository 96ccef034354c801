"""Split interactions into train, valid and test, before any other stage sees them.

All strategies work on integer codes in sorted (user, item) order, so that the result
depends on the interactions and the seed alone, never on the order of rows in a file. They may
come in batches of whole users; into which ones decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.arrow import Ints, codes
from models.config import Split
from models.errors import BadInput
from models.schemas import ITEM, TIMESTAMP, USER

TRAIN, VALID, TEST, DROPPED = 0, 1, 2, 3
_SHORTEST = 3


def split(interactions: pa.Table, config: Split) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Divide `interactions` (schema `INTERACTIONS`) into train, valid and test tables.

    random follows RecBole 1.2.1's ratio split per user (recbole/data/dataset/dataset.py,
    `_calcu_split_ids`): shares are rounded down, but each of valid and test gets at least one.

    Raises:
        BadInput: for users with fewer than three interactions (unless the configuration says
            what to do with them), and for strategies by time when timestamps are missing.
    """
    table = interactions.sort_by([(USER, "ascending"), (ITEM, "ascending")])
    parts = divide([table], table[TIMESTAMP], config)
    train, valid, test = (table.filter(pa.array(parts == code)) for code in (TRAIN, VALID, TEST))
    return train, valid, test


def divide(
    tables: Iterable[pa.Table], timestamps: pa.ChunkedArray, config: Split
) -> NDArray[np.int8]:
    """Assign each interaction to a part, for `split`, whose errors it raises.

    `tables` have the schema `INTERACTIONS`, sorted by user and item, in batches of whole users;
    `timestamps` are all of them, in any order, for strategies by time.

    Returns:
        int8 (rows of all tables,): `TRAIN`, `VALID`, `TEST` or `DROPPED`.
    """
    if config.strategy == "files":
        raise ValueError("strategy files needs the files' pairs: see split_as_given")
    cuts = (0, 0)
    if config.by_time:
        _require_timestamps(timestamps, config)
    if config.strategy == "temporal":
        cuts = _cuts(np.asarray(timestamps, dtype=np.int64), config)
    rng, thinning = np.random.default_rng(config.seed), np.random.default_rng([config.seed, 1])
    parts, short, n_users, n_short = [np.empty(0, np.int8)], list[str](), 0, 0
    for table in tables:
        users = codes(table[USER])
        counts = np.bincount(users)
        is_short = counts < _SHORTEST
        n_users, n_short = n_users + len(counts), n_short + int(is_short.sum())
        short += _short_users(table, users, counts, 5 - len(short))
        part = _parts(table, users, counts, cuts, config, rng)
        part[is_short[users]] = TRAIN if config.short_histories == "train" else DROPPED
        if config.train_limit is not None and config.strategy != "cold-users":
            part[_beyond(users, part, config.train_limit, thinning)] = DROPPED
        parts.append(part.astype(np.int8))
    if short and config.short_histories == "error":
        raise BadInput(
            f"split: {n_short} of {n_users} users have fewer than {_SHORTEST} interactions and "
            "cannot give one to each of train, valid and test: user "
            f"{', '.join(short)}{', …' if n_short > 5 else ''}. Set split.short_histories to train "
            "or drop."
        )
    whole = np.concatenate(parts)
    if not (whole == VALID).any() or not (whole == TEST).any():
        raise BadInput(
            f"split: {config.strategy} left valid or test empty. "
            "Use another strategy, other ratios or more data."
        )
    return whole


def _parts(
    table: pa.Table,
    users: Ints,
    counts: Ints,
    cuts: tuple[int, int],
    config: Split,
    rng: np.random.Generator,
) -> Ints:
    """Parts by the strategy alone, of a batch of whole users with these codes and counts."""
    if config.strategy == "random":
        return _random(users, counts, config, rng)
    if config.strategy == "cold-items":
        return _by_id(table[ITEM], config.ratios, config.seed)
    if config.strategy == "cold-users":
        # Who is new is the same for every seed: comparisons pair users over splits.
        assert config.train_limit is not None
        later = _beyond(users, np.zeros_like(users), config.train_limit, rng)  # TRAIN is 0
        part = np.zeros_like(users)
        part[later] = _by_id(table[USER], config.ratios, 0)[later]
        return part
    times = np.asarray(table[TIMESTAMP], dtype=np.int64)
    if config.strategy == "leave-one-out":
        return _leave_one_out(users, counts, times)
    return _temporal(times, *cuts)


def split_as_given(
    interactions: pa.Table, given: Mapping[str, pa.Table], config: Split
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Divide `interactions`, schema `INTERACTIONS`, as files say; those in no file are left out.

    `given` has `user_id` and `item_id` (string) of train, test and perhaps valid. Ratings and times
    are the data set's own. Without a valid part, each user with at least two training interactions
    gives `valid_share` of them, rounded down but at least one.

    Raises:
        BadInput: for pairs that the data set does not have, that one file lists twice or two files
            share, and for users without a training interaction (unless left out).
    """
    table = interactions.sort_by([(USER, "ascending"), (ITEM, "ascending")])
    known = pairs_of(table)
    parts = np.full(len(known), DROPPED)
    for name, code in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        if name in given:
            rows = _rows_of(given[name], name, known)
            _require_free(parts, rows, name, table)
            parts[rows] = code
    users = codes(table[USER])
    n_train = np.bincount(users[parts == TRAIN], minlength=int(users.max(initial=-1)) + 1)
    cold = (n_train[users] == 0) & (parts != DROPPED)
    if cold.any() and config.short_histories == "error":
        raise BadInput(_cold_users(table.filter(pa.array(cold))))
    parts[cold] = DROPPED
    if "valid" not in given:
        parts[_held_out(users, parts, n_train, config)] = VALID
    if config.train_limit is not None:
        rng = np.random.default_rng([config.seed, 1])
        parts[_beyond(users, parts, config.train_limit, rng)] = DROPPED
    if not all((parts == code).any() for code in (TRAIN, VALID, TEST)):
        raise BadInput("split: the files leave train, valid or test empty. Give each some rows.")
    train, valid, test = (table.filter(pa.array(parts == c)) for c in (TRAIN, VALID, TEST))
    return train, valid, test


def pairs_of(table: pa.Table) -> pa.Array:
    """Join user and item to one text, with a tab, which no id can hold."""
    texts = pc.binary_join_element_wise(table[USER], table[ITEM], "\t")
    return pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())


def _rows_of(given: pa.Table, name: str, known: pa.Array) -> Ints:
    """Each given pair's row in the data set."""
    pairs = pairs_of(given)
    rows = pc.index_in(pairs, known)
    unknown = pairs.filter(pc.is_null(rows))
    if len(unknown):
        raise BadInput(
            f"split.{name}: {len(unknown)} of {len(pairs)} user-item pairs are not in the data "
            f"set: {_shown(unknown)}. Use the files of this data set, or correct the ids."
        )
    found = np.asarray(rows, dtype=np.int64)
    unique, counts = np.unique(found, return_counts=True)
    if len(unique) < len(found):
        raise BadInput(
            f"split.{name}: {(counts > 1).sum()} user-item pairs are listed more than once: "
            f"{_shown(known.take(pa.array(unique[counts > 1])))}. Keep one row of each."
        )
    return found


def _require_free(parts: Ints, rows: Ints, name: str, table: pa.Table) -> None:
    shared = rows[parts[rows] != DROPPED]
    if len(shared):
        files = sorted({("train", "valid", "test")[code] for code in parts[shared]})
        raise BadInput(
            f"split.{name}: {len(shared)} user-item pairs are in split.{' and '.join(files)} as "
            f"well: {_shown(pairs_of(table.take(pa.array(shared))))}. Keep each pair in one file."
        )


def _held_out(users: Ints, parts: Ints, n_train: Ints, config: Split) -> Ints:
    """Rows of train that become valid, drawn per user."""
    rows, position = _shuffled(users, parts, np.random.default_rng(config.seed))
    share = np.maximum(np.floor(config.valid_share * n_train + 1e-9).astype(np.int64), 1)
    share[n_train < 2] = 0
    return np.asarray(rows[position < share[users[rows]]])


def _beyond(users: Ints, parts: Ints, limit: int, rng: np.random.Generator) -> Ints:
    """Training rows beyond `limit` of each user; a smaller limit leaves some of the same."""
    rows, position = _shuffled(users, parts, rng)
    return rows[position >= limit]


def _shuffled(users: Ints, parts: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The training rows, and the place of each in a random order of its user's: int64 (n,)."""
    rows = np.flatnonzero(parts == TRAIN)
    order = np.lexsort((rng.random(len(rows)), users[rows]))
    return rows, _position(users[rows], order)


def _cold_users(rows: pa.Table) -> str:
    users = pc.unique(rows[USER])
    return (
        f"split: {len(users)} users are in valid or test without a training interaction: "
        f"{', '.join(users[:10].to_pylist())}{', …' if len(users) > 10 else ''}. Give each "
        "one, or set split.short_histories to drop, which leaves the users out."
    )


def _shown(pairs: pa.Array) -> str:
    shown = [" ".join(pair.split("\t")) for pair in pairs[:10].to_pylist()]
    return ", ".join(shown) + (", …" if len(pairs) > 10 else "")


def _require_timestamps(timestamps: pa.ChunkedArray, config: Split) -> None:
    missing = timestamps.null_count
    if missing:
        raise BadInput(
            f"split.strategy is {config.strategy}, but {missing} of {len(timestamps)} interactions "
            "have no timestamp. Use strategy random or supply timestamps."
        )


def _short_users(table: pa.Table, users: Ints, counts: Ints, n: int) -> list[str]:
    """The first n users who are too short to be divided, with their numbers of interactions."""
    short = np.flatnonzero(counts < _SHORTEST)[:n]
    rows = np.searchsorted(users, short)
    return [
        f"{table[USER][int(row)]} ({counts[code]})" for row, code in zip(rows, short, strict=True)
    ]


def _position(users: Ints, order: Ints) -> Ints:
    """Each row's rank within its user, given a row order that is grouped by user."""
    starts = np.concatenate(([0], np.cumsum(np.bincount(users))))[:-1]
    position = np.empty(len(users), dtype=np.int64)
    position[order] = np.arange(len(users)) - starts[users[order]]
    return position


def _random(users: Ints, counts: Ints, config: Split, rng: np.random.Generator) -> Ints:
    """Draws one number per row, so that batches draw what the whole table would."""
    keys = rng.random(len(users))
    position = _position(users, np.lexsort((keys, users)))
    n_valid, n_test = (
        np.maximum(np.floor(share * counts + 1e-9).astype(np.int64), 1)[users]
        for share in config.ratios[1:]
    )
    n_train = counts[users] - n_valid - n_test
    return np.where(position < n_train, TRAIN, np.where(position < n_train + n_valid, VALID, TEST))


def _leave_one_out(users: Ints, counts: Ints, timestamps: Ints) -> Ints:
    """The newest interaction is test, the one before it valid; ties go by item id."""
    rows = np.arange(len(users))
    from_end = counts[users] - _position(users, np.lexsort((rows, timestamps, users)))
    return np.where(from_end == 1, TEST, np.where(from_end == 2, VALID, TRAIN))


def _by_id(column: pa.ChunkedArray, ratios: Sequence[float], seed: int) -> Ints:
    """Parts of whole items (users), by a hash of their ids, so that batches agree on one."""
    from pandas.util import hash_array

    encoded = column.combine_chunks().dictionary_encode()
    ids = encoded.dictionary.to_numpy(zero_copy_only=False)
    drawn = hash_array(ids, hash_key=f"{seed:016d}") / 2.0**64
    of_id = np.searchsorted(np.cumsum(ratios[:2]), drawn, side="right")
    of_row: Ints = of_id[np.asarray(encoded.indices)]
    return of_row


def _cuts(timestamps: Ints, config: Split) -> tuple[int, int]:
    ordered = np.sort(timestamps)
    shares = np.cumsum(config.ratios[:2])
    first, second = (int(ordered[min(int(s * len(ordered)), len(ordered) - 1)]) for s in shares)
    return first, second


def _temporal(timestamps: Ints, first: int, second: int) -> Ints:
    """One global cut: no training interaction is newer than any valid or test one."""
    return np.where(timestamps < first, TRAIN, np.where(timestamps < second, VALID, TEST))
