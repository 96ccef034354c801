"""MovieLens-100k as RecBole's wheel carries it, divided by the repository's own split."""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from models.config import Split
from models.dataset.splitting import split
from models.schemas import INTERACTIONS, ITEM, RATING, TIMESTAMP, USER

SPLIT_SEED = 2026


@dataclass(frozen=True)
class MovieLens:
    """Train, valid and test (schema `INTERACTIONS`): random 70/10/20 per user."""

    train: pa.Table
    valid: pa.Table
    test: pa.Table

    @classmethod
    def read(cls) -> Self:
        """Read and divide the 100,000 ratings."""
        file = files("recbole") / "dataset_example" / "ml-100k" / "ml-100k.inter"
        columns = {
            USER: pa.string(),
            ITEM: pa.string(),
            RATING: pa.float32(),
            TIMESTAMP: pa.float64(),
        }
        with file.open("rb") as stream:
            table = csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=list(columns), skip_rows=1),
                parse_options=csv.ParseOptions(delimiter="\t"),
                convert_options=csv.ConvertOptions(column_types=columns),
            )
        return cls(*split(table.cast(INTERACTIONS), Split(seed=SPLIT_SEED)))

    @cached_property
    def users(self) -> list[str]:
        """All raw user ids, sorted."""
        return self._distinct(USER)

    @cached_property
    def items(self) -> list[str]:
        """All raw item ids, sorted."""
        return self._distinct(ITEM)

    def _distinct(self, column: str) -> list[str]:
        parts = [self.train[column], self.valid[column], self.test[column]]
        found = pc.unique(pa.concat_arrays([part.combine_chunks() for part in parts]))
        return sorted(found.to_pylist())


def pairs(part: pa.Table) -> tuple[list[str], list[str]]:
    """Raw user and item ids of a part."""
    return part[USER].to_pylist(), part[ITEM].to_pylist()
