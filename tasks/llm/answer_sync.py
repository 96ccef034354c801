"""Answers that were paid for, shared by all machines of a store.

Each machine has an `answers.sqlite` of its own. What is new in it goes to the store every few
seconds and when it is closed, as objects `answers/DIGEST.parquet` that never change; answers that
other machines have put there are merged when it is opened. So the next run, on any machine, pays
for nothing again. Two runs that ask at the same time on two machines do not know of each other.
"""

import hashlib
import io
import json
import sqlite3
import time

import pyarrow as pa
import pyarrow.parquet as pq
from prefect.logging import get_logger

from models.errors import BadInput
from tasks.storage.object_store import Store

FOLDER = "answers"
_SECONDS = 5.0
_MOST = 1000
"""Answers that are not in the store yet, before they are put there."""

_AT_ONCE = 20_000
"""Answers in one object, where many are new."""

_SCHEMA = """
-- By store: which answers of this file it has, and which of its objects were merged into this file.
CREATE TABLE IF NOT EXISTS shared (
    store TEXT, key TEXT, finished_at REAL, exported INTEGER, PRIMARY KEY (store, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS merged (store TEXT, name TEXT, PRIMARY KEY (store, name)) WITHOUT ROWID;
"""

_UNSHARED = """
SELECT answers.* FROM answers LEFT JOIN shared ON shared.store = ? AND shared.key = answers.key
WHERE (shared.finished_at, shared.exported) IS NOT (answers.finished_at, answers.exported)
"""

_SHARED = "INSERT OR REPLACE INTO shared VALUES (?, ?, ?, ?)"

# A usable answer stays before an unusable one, then the newer, then the one already shown as paid.
_MERGE = """
INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    provider = excluded.provider, model = excluded.model, text = excluded.text,
    prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens,
    cost_usd = excluded.cost_usd, latency_seconds = excluded.latency_seconds,
    finished_at = excluded.finished_at, exported = excluded.exported
WHERE (excluded.text IS NOT NULL, excluded.finished_at, excluded.exported)
    > (answers.text IS NOT NULL, answers.finished_at, answers.exported)
"""

_ROWS = pa.schema(
    {
        **dict.fromkeys(("key", "provider", "model", "text"), pa.string()),
        **dict.fromkeys(("prompt_tokens", "completion_tokens"), pa.int64()),
        **dict.fromkeys(("cost_usd", "latency_seconds", "finished_at"), pa.float64()),
        "exported": pa.int64(),
    }
)
"""The columns of `answers`, in their order."""

_Row = tuple[str | float | None, ...]


class SharedAnswers:
    """The store's side of an open `answers.sqlite`."""

    def __init__(self, connection: sqlite3.Connection, remote: Store) -> None:
        """Take a connection to a file that has the table `answers`."""
        self._connection, self._remote = connection, remote
        self._waiting: list[str] = []
        self._pushed_at = time.monotonic()
        connection.executescript(_SCHEMA)

    def pull(self) -> None:
        """Merge what other machines have put into the store; `BadInput` if it cannot be read."""
        query = "SELECT name FROM merged WHERE store = ?"
        known = {name for (name,) in self._connection.execute(query, (self._remote.url,))}
        for entry in sorted(self._remote.entries(FOLDER), key=lambda entry: entry.changed):
            if entry.name not in known:
                self._merge(entry.name)

    def _merge(self, name: str) -> None:
        content, url = self._remote.read(name), self._remote.url
        if content is None or name != _name(content):
            get_logger("answers").warning(
                "%s/%s is gone or was altered: its answers are asked for again", url, name
            )
            return
        table = pq.read_table(io.BytesIO(content), schema=_ROWS)
        rows = [tuple(row.values()) for row in table.to_pylist()]
        self._connection.execute("BEGIN")
        self._connection.executemany(_MERGE, rows)
        self._note(rows, name)

    def put(self, key: str) -> None:
        """Note an answer that was put, and share what waits, if it is time to.

        A store that fails now is tried again later: the answers are safe on this machine.
        """
        self._waiting.append(key)
        since = time.monotonic() - self._pushed_at
        if len(self._waiting) < _MOST and since < _SECONDS:
            return
        query = f"{_UNSHARED} AND answers.key IN (SELECT value FROM json_each(?))"
        self._pushed_at = time.monotonic()
        try:
            self._push(query, json.dumps(self._waiting))
        except BadInput as error:
            get_logger("answers").warning("Answers are not in the store yet: %s", error)
        else:
            self._waiting.clear()

    def push(self) -> None:
        """Share all that the store lacks, also what a killed run left; BadInput if it cannot."""
        while self._push(f"{_UNSHARED} LIMIT {_AT_ONCE}"):
            continue

    def _push(self, query: str, *parameters: str) -> int:
        """Write the answers that a query finds as one object; returns how many there are."""
        rows = self._connection.execute(query, (self._remote.url, *parameters)).fetchall()
        if not rows:
            return 0
        table = pa.Table.from_pylist(
            [dict(zip(_ROWS.names, row, strict=True)) for row in rows], _ROWS
        )
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        name = _name(stream.getvalue())
        self._remote.write(name, stream.getvalue())
        self._connection.execute("BEGIN")
        self._note(rows, name)
        return len(rows)

    def _note(self, rows: list[_Row], name: str) -> None:
        """Record that an object holds these rows, and end the transaction."""
        url = self._remote.url
        self._connection.executemany(_SHARED, [(url, row[0], row[-2], row[-1]) for row in rows])
        self._connection.execute("INSERT OR IGNORE INTO merged VALUES (?, ?)", (url, name))
        self._connection.execute("COMMIT")


def _name(content: bytes) -> str:
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()[:20]}.parquet"
