"""Embeddings of texts by content, kept across runs."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.arrow import Singles
from models.config import Embeddings
from models.errors import BadInput
from tasks.embeddings.text_models import identity
from tasks.storage.artifacts import data_dir
from tasks.storage.disk_errors import writing


def stored_vectors(config: Embeddings, texts: list[str]) -> tuple[NDArray[np.intp], Singles]:
    """Read what earlier runs embedded: the places in `texts`, ascending, and their vectors.

    Nothing is embedded, so nothing is paid for.
    """
    if not _path().is_file():
        return np.array([], np.intp), np.zeros((0, 0), np.float32)
    with vector_store() as store:
        return store.read(text_keys(config, texts))


def text_keys(config: Embeddings, texts: list[str]) -> list[bytes]:
    """Hash each text with everything else that decides its vector: one sha256 per text."""
    prefix = json.dumps(identity(config)).encode()
    return [hashlib.sha256(prefix + text.encode()).digest() for text in texts]


_SCHEMA = """
CREATE TABLE IF NOT EXISTS embedded (
    key    BLOB PRIMARY KEY,
    vector BLOB,
    cut_at INTEGER  -- tokens that the model read of a longer text; null: all of it
)
"""


class VectorStore:
    """Vectors by key in SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._widths = set[float]()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(_SCHEMA)
        connection.execute("CREATE TEMP TABLE wanted (position INTEGER PRIMARY KEY, key BLOB)")
        (self._last,) = connection.execute("SELECT ifnull(max(rowid), 0) FROM embedded").fetchone()

    def read(self, keys: list[bytes]) -> tuple[NDArray[np.intp], Singles]:
        """Find which of `keys` are in the store, ascending, and their float32 (n_known, width)."""
        with self._connection as connection:
            connection.execute("DELETE FROM wanted")
            connection.executemany("INSERT INTO wanted VALUES (?, ?)", enumerate(keys))
            found = connection.execute(
                "SELECT position, vector FROM wanted JOIN embedded USING (key) ORDER BY position"
            ).fetchall()
        positions = np.array([position for position, _ in found], dtype=np.intp)
        widths = {len(vector) / 4 for _, vector in found}
        self._widths |= widths
        if len(self._widths) > 1 or any(width % 1 for width in widths):
            known = ", ".join(f"{width:g}" for width in sorted(self._widths))
            raise BadInput(
                f"{_path()} holds vectors of widths [{known}] of one model, which "
                "must have changed under its name. Delete that file to embed all texts again."
            )
        flat = np.frombuffer(b"".join(vector for _, vector in found), dtype="<f4")
        return positions, flat.reshape(len(found), int(max(widths, default=0)))

    def n_read_from_before(self) -> int:
        """Count the keys read last that were there when the store was opened."""
        (n,) = self._connection.execute(
            "SELECT count(*) FROM wanted JOIN embedded USING (key) WHERE embedded.rowid <= ?",
            [self._last],
        ).fetchone()
        return int(n)

    def cut_at(self) -> list[int | None]:
        """Say for the keys read last, in their order, after how many tokens the text was cut."""
        rows = self._connection.execute(
            "SELECT cut_at FROM wanted JOIN embedded USING (key) ORDER BY position"
        )
        return [tokens for (tokens,) in rows]

    def write(self, keys: list[bytes], matrix: Singles, cut_at: Sequence[int | None]) -> None:
        """Commit the vectors, float32 (n_keys, width), and where each text was cut, if it was."""
        rows = (row.tobytes() for row in matrix.astype("<f4"))
        with self._connection as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO embedded VALUES (?, ?, ?)",
                zip(keys, rows, cut_at, strict=True),
            )


@contextmanager
def vector_store() -> Iterator[VectorStore]:
    """Open the data folder's store; BadInput if the file is busy or damaged."""
    with writing(_path()):
        connection = sqlite3.connect(_path(), timeout=60)
    try:
        with writing(_path()):
            yield VectorStore(connection)
    except sqlite3.DatabaseError as error:
        raise BadInput(
            f"{_path()}: busy or damaged. Stop what holds it, or delete it: texts are then "
            "embedded again."
        ) from error
    finally:
        connection.close()


def _path() -> Path:
    return data_dir() / "embeddings.sqlite"
