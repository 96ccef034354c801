"""Data that need not fit into memory: artifacts in batches, and a temporary database on disk."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.schemas import INTERACTIONS, ITEM, USER
from tasks.storage.artifacts import Handle
from tasks.storage.data_dir import data_dir
from tasks.storage.disk_errors import writing

if TYPE_CHECKING:
    import duckdb

ROWS_AT_ONCE = 1 << 20
"""Interactions per batch: with everything computed from it, a batch stays below 1 GB."""
MEMORY_LIMIT = "2GB"
"""Beyond it, DuckDB spills to disk."""
_SORTED = "SELECT * FROM read_parquet($path) ORDER BY user_id, item_id"


@dataclass(frozen=True)
class Stream:
    """An artifact that was verified once and can be read as often as needed."""

    path: Path
    rows: int

    @classmethod
    def of(cls, handle: Handle) -> Self:
        """Verify an artifact; see `Handle.verify` for errors."""
        return cls(handle.verify(), handle.rows)

    def tables(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read the rows in their order, at most `rows` at once."""
        # Row groups are read piece by piece: to prefetch them would hold them whole.
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(rows, columns=columns):
                yield pa.Table.from_batches([batch])

    def by_user(self, rows: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """Read interactions by user and item, in tables of whole users, of about `rows` each."""
        order = [(USER, "ascending"), (ITEM, "ascending")]
        if self.rows <= rows:
            yield pq.read_table(self.path).sort_by(order)
        elif self._is_sorted:
            yield from _whole_users(self.tables(rows))
        else:
            yield from _whole_users(self._sorted(rows))

    @cached_property
    def _is_sorted(self) -> bool:
        """Whether rows are in order already, as the stages write them."""
        last: pa.Table | None = None
        for table in self.tables(ROWS_AT_ONCE, [USER, ITEM]):
            joined = pa.concat_tables([last, table] if last else [table]).combine_chunks()
            before, after = joined.slice(0, joined.num_rows - 1), joined.slice(1)
            later_item = pc.and_(
                pc.equal(before[USER], after[USER]), pc.less_equal(before[ITEM], after[ITEM])
            )
            ordered = pc.or_(pc.less(before[USER], after[USER]), later_item)
            if not pc.all(ordered, min_count=0).as_py():
                return False
            last = joined.slice(joined.num_rows - 1)
        return True

    def _sorted(self, rows: int) -> Iterator[pa.Table]:
        with scratch() as connection:
            found = connection.sql(_SORTED, params={"path": str(self.path)})
            for batch in found.to_arrow_reader(rows):
                yield pa.Table.from_batches([batch]).cast(INTERACTIONS)


def _whole_users(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, cut between users."""
    kept: list[pa.Table] = []
    for table in tables:
        whole = pa.concat_tables([*kept, table]).combine_chunks()
        first_of_last = pc.index(whole[USER], whole[USER][-1]).as_py()
        if first_of_last:
            yield whole.slice(0, first_of_last)
        kept = [whole.slice(first_of_last)]
    yield from kept


@contextmanager
def scratch() -> Iterator["duckdb.DuckDBPyConnection"]:
    """Open a temporary database on disk; it is deleted afterwards."""
    import duckdb

    home = data_dir() / "scratch"
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            with duckdb.connect(
                str(Path(folder) / "scratch.duckdb"),
                config={"memory_limit": MEMORY_LIMIT, "temp_directory": folder},
            ) as connection:
                yield connection
