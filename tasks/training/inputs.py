"""What a training reads, in the forms that models take."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.config import Side
from models.embeddings.text_batches import to_matrix
from models.schemas import GENRES, ITEM, RATING, TARGET, TIMESTAMP, USER, YEAR
from tasks.storage.artifacts import Handle, read_parquet

if TYPE_CHECKING:
    from models.recommenders.recbole_adapter import Log, Universe


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a training reads; held-out test data is not among them."""

    train: Handle
    valid: Handle
    users: Handle
    items: Handle
    targets: dict[Side, Handle]
    initial: Handle | None = None

    def handles(self) -> dict[str, Handle]:
        """All of them, by name."""
        parts = {"train": self.train, "valid": self.valid, "users": self.users, "items": self.items}
        if self.initial is not None:
            parts["initial"] = self.initial
        return parts | {f"targets of {side}": handle for side, handle in self.targets.items()}


def log_of(handle: Handle, like_from: float | None) -> "Log":
    """Training interactions, with likes where a rating decides."""
    from models.evaluation.click_metrics import likes
    from models.recommenders.recbole_adapter import Log

    table = read_parquet(handle, [USER, ITEM, RATING, TIMESTAMP])
    times = table[TIMESTAMP]
    return Log(
        table[USER].to_pylist(),
        table[ITEM].to_pylist(),
        times=None if times.null_count else np.asarray(times, dtype=np.int64),
        labels=None if like_from is None else likes(table[RATING], like_from).astype(np.float32),
    )


def universe_of(inputs: Inputs) -> "Universe":
    """All users, and all items with their features."""
    from models.recommenders.recbole_adapter import Universe

    items = read_parquet(inputs.items, [ITEM, YEAR, GENRES])
    years = ["" if year is None else str(year) for year in items[YEAR].to_pylist()]
    genres = [of or [] for of in items[GENRES].to_pylist()]
    return Universe(
        column_of(inputs.users, USER),
        items[ITEM].to_pylist(),
        years if any(years) else (),
        genres if any(genres) else (),
    )


def column_of(handle: Handle, column: str) -> list[str]:
    """A column of raw ids."""
    values: list[str] = read_parquet(handle, [column])[column].to_pylist()
    return values


def pairs_of(handle: Handle) -> tuple[list[str], list[str]]:
    """Pairs of raw ids, oldest first."""
    table = read_parquet(handle, [USER, ITEM, TIMESTAMP]).sort_by(TIMESTAMP)
    return table[USER].to_pylist(), table[ITEM].to_pylist()


def vectors_of(handle: Handle) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and float32 (n, width) of a targets artifact."""
    table = read_parquet(handle)
    return table[table.column_names[0]].to_pylist(), to_matrix(table[TARGET])
