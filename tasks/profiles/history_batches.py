"""Users' training histories in batches, as prompts are written from them."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from models.config import History
from models.profiles.user_history import record, select
from models.schemas import INTERACTIONS, RATING
from tasks.storage.artifact_batches import Stream


class Histories:
    """What `user_history.select` chooses of each user, one batch of users at a time.

    Attributes:
        mean_rating: of everything chosen; None where nothing is rated.
    """

    def __init__(self, stream: Stream, policy: History) -> None:
        self._stream, self._policy = stream, policy
        self._fill = _mean(stream.by_user())
        self.mean_rating = _mean(self.selected())

    def selected(self) -> Iterator[pa.Table]:
        """Rows of the training part, grouped by user, users in sorted order."""
        for table in self._stream.by_user():
            yield select(table, self._policy, self._fill)

    def records(self) -> pa.Table:
        """What each profile may see: `models.profiles.user_history.record` of all users."""
        found = [record(table) for table in self.selected()]
        return pa.concat_tables(found or [record(INTERACTIONS.empty_table())]).combine_chunks()


def _mean(tables: Iterable[pa.Table]) -> float | None:
    """The mean rating; of a single table to the bit what Arrow's mean is."""
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
