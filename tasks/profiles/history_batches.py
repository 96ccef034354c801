"""Users' training histories in batches, as prompts are written from them."""

from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from models.config import History
from models.profiles.provenance import record
from models.profiles.user_history import select
from models.schemas import INTERACTIONS, RATING, USER
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle


def selected(
    train: Handle, policy: History, users: Collection[str] | None = None
) -> Iterator[pa.Table]:
    """Yield what `user_history.select` chooses of each user, one batch of sorted users a time.

    With `users`, of these alone.
    """
    stream = Stream.of(train)
    fill = mean_rating(stream.by_user())
    wanted = None if users is None else pa.array(users, pa.string())
    for table in stream.by_user():
        rows = table if wanted is None else table.filter(pc.is_in(table[USER], wanted))
        if rows.num_rows:
            yield select(rows, policy, fill)


def records(train: Handle, policy: History, users: Collection[str] | None = None) -> pa.Table:
    """Return what each user's profile may see: `models.profiles.user_history.record`."""
    tables = [record(table) for table in selected(train, policy, users)]
    return pa.concat_tables(tables or [record(INTERACTIONS.empty_table())]).combine_chunks()


def mean_rating(tables: Iterable[pa.Table]) -> float | None:
    """Average the ratings; of a single table to the bit as Arrow does, None without ratings."""
    means, counts = list[float](), list[int]()
    for table in tables:
        known = len(table) - table[RATING].null_count
        if known:
            means.append(pc.mean(table[RATING]).as_py())
            counts.append(known)
    if len(means) < 2:
        return means[0] if means else None
    total = sum(mean * count for mean, count in zip(means, counts, strict=True))
    return total / sum(counts)
