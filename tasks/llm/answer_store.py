"""The answer store: every LLM answer that was paid for, one by one, in SQLite.

An answer is committed as it arrives, so a killed run loses only what was in flight. It is also
a ledger: an answer counts as paid until a finished run has exported it, and as cached from then
on, so that each shows up as paid once, even if the run that paid for it was killed.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from filelock import Timeout
from prefect.logging import get_logger

from models.errors import BadInput
from models.llm.response_checks import is_too_long
from models.schemas import LLM_CALLS
from tasks.llm.answer_sync import SharedAnswers
from tasks.storage.data_dir import data_dir, data_lock
from tasks.storage.disk_errors import reason, writing
from tasks.storage.object_store import store

_BUSY_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key               TEXT PRIMARY KEY,            -- sha256 of endpoint, parameters, messages
    provider          TEXT NOT NULL,
    model             TEXT NOT NULL,
    text              TEXT,                        -- null: answered, but not usably
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cost_usd          REAL,                        -- null: price not known
    latency_seconds   REAL NOT NULL,
    finished_at       REAL NOT NULL,               -- Unix seconds
    exported          INTEGER NOT NULL DEFAULT 0   -- 1: some finished run has shown it as paid
) WITHOUT ROWID;
-- The prompts of this run; messages only where they have to be asked, in the order of asking.
CREATE TEMP TABLE wanted (key TEXT NOT NULL UNIQUE, messages TEXT);
"""

# Asking again for an unusable answer adds to its bill, unless that part was exported already.
_PUT = """
INSERT INTO answers VALUES (
    :key, :provider, :model, :text, :prompt_tokens, :completion_tokens, :cost_usd,
    :latency_seconds, :finished_at, 0
)
ON CONFLICT (key) DO UPDATE SET
    text = excluded.text,
    prompt_tokens = excluded.prompt_tokens + iif(exported, 0, ifnull(prompt_tokens, 0)),
    completion_tokens =
        excluded.completion_tokens + iif(exported, 0, ifnull(completion_tokens, 0)),
    cost_usd = excluded.cost_usd + iif(exported, 0.0, cost_usd),
    latency_seconds = excluded.latency_seconds,
    finished_at = excluded.finished_at,
    exported = 0
"""

_NEXT_QUESTIONS = """
SELECT rowid, key, messages FROM wanted
WHERE rowid > ? AND messages IS NOT NULL ORDER BY rowid LIMIT 1000
"""

_CALLS = """
SELECT key, provider, model, prompt_tokens, completion_tokens,
       iif(exported, 0.0, cost_usd), exported, latency_seconds, finished_at
FROM answers JOIN wanted USING (key) ORDER BY key
"""


@dataclass(frozen=True)
class Question:
    """One prompt and the key of its answer."""

    key: str
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt, and what it took, over all attempts."""

    text: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_seconds: float
    finished_at: datetime


class AnswerStore:
    """The questions of one run, in memory, and all answers, on disk."""

    def __init__(self, connection: sqlite3.Connection, shared: SharedAnswers | None = None) -> None:
        self._execute, self._shared = connection.execute, shared

    def want(self, questions: Iterable[Question]) -> list[str]:
        """Add to the run's questions, of which equal ones count once; returns all their keys."""
        keys = []
        self._execute("BEGIN")
        for question in questions:
            keys.append(question.key)
            messages = json.dumps(question.messages)
            self._execute("INSERT OR IGNORE INTO wanted VALUES (?, ?)", (question.key, messages))
        self._execute("COMMIT")
        return keys

    def unanswered(self) -> int:
        """Count the questions that have no usable answer yet."""
        self._execute(
            "UPDATE wanted SET messages = NULL WHERE messages IS NOT NULL AND "
            "key IN (SELECT key FROM answers WHERE usable(text))"
        )
        return self._count("SELECT count(messages) FROM wanted")

    def unexported(self) -> int:
        """Count the answers that were paid for but not yet shown by a finished run."""
        return self._count(
            "SELECT count(*) FROM wanted JOIN answers USING (key) WHERE NOT exported"
        )

    def questions(self) -> Iterator[Question]:
        """Yield the questions without a usable answer when `unanswered` was last called."""
        # In batches: a SELECT that stays open would keep the write-ahead log from being emptied.
        last = 0
        while batch := self._execute(_NEXT_QUESTIONS, (last,)).fetchall():
            for _, key, messages in batch:
                yield Question(key, json.loads(messages))
            last = batch[-1][0]

    def put(
        self, key: str, provider: str, model: str, answer: Answer, cost_usd: float | None
    ) -> None:
        """Commit one answer."""
        row = {**vars(answer), "finished_at": answer.finished_at.timestamp(), "cost_usd": cost_usd}
        row |= {"key": key, "provider": provider, "model": model}
        self._execute(_PUT, row)
        if self._shared:
            self._shared.put(key)

    def has(self, key: str, finished_at: datetime) -> bool:
        """True if exactly this answer was put before: putting it again would bill it twice."""
        query = "SELECT count(*) FROM answers WHERE key = ? AND finished_at = ?"
        (count,) = self._execute(query, (key, finished_at.timestamp())).fetchone()
        return bool(count)

    def knows(self, keys: Iterable[str]) -> bool:
        """True if every key has a usable answer, whether or not this run asks for it."""
        query = "SELECT 1 FROM answers WHERE key = ? AND text IS NOT NULL"
        return all(self._execute(query, (key,)).fetchone() for key in keys)

    def texts(self) -> dict[str, str]:
        """Return the usable answers by key."""
        return dict(
            self._execute(
                "SELECT key, text FROM answers JOIN wanted USING (key) WHERE usable(text)"
            )
        )

    def calls(self) -> pa.Table:
        """Return the bill (schema `LLM_CALLS`): a row per answer, usable or not, sorted by key."""
        rows = [dict(zip(LLM_CALLS.names, row, strict=True)) for row in self._execute(_CALLS)]
        for row in rows:
            row["cached"] = bool(row["cached"])
            row["finished_at"] = round(row["finished_at"] * 1_000_000)
        return pa.Table.from_pylist(rows, LLM_CALLS)

    def mark_exported(self) -> None:
        """Record that a finished run has shown these answers as paid."""
        self._execute("UPDATE answers SET exported = 1 WHERE key IN (SELECT key FROM wanted)")

    def _count(self, query: str) -> int:
        (count,) = self._execute(query).fetchone()
        return int(count)


@contextmanager
def answer_store(max_words: int | None = None) -> Iterator[AnswerStore]:
    """Open the store; an answer longer than `max_words` counts as unanswered.

    Where the data folder is a store of objects, see `tasks.llm.answer_sync`.

    Raises:
        BadInput: if the file is no usable SQLite database.
    """
    remote = store()
    path = data_dir() / "answers.sqlite"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        with writing(path), _whole(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        connection.create_function(
            "usable", 1, lambda text: text is not None and not is_too_long(text, max_words)
        )
    except BaseException:
        connection.close()
        raise
    try:
        with writing(path), _whole(path):
            shared = SharedAnswers(connection, remote) if remote else None
            if shared:
                shared.pull()
            try:
                yield AnswerStore(connection, shared)
            finally:
                if shared:
                    shared.push()
    finally:
        connection.close()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Raise `BadInput` where SQLite finds that the file is none of its own, damaged or other."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if reason(error) is not None:
            raise
        raise BadInput(
            f"{path}: damaged, or no database of answers. Restore a copy, or move it away with its "
            "-wal and -shm files: its answers are then asked for, and paid, again"
        ) from error


@contextmanager
def answer_lock() -> Iterator[None]:
    """Let one run ask at a time, so that no two pay for the same answer.

    The kernel holds the lock, so a killed run leaves none behind.
    """
    lock = data_lock("answers")
    with writing(data_dir() / "locks"):
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            get_logger("profiles").info("Waiting for another run that is asking an LLM")
            held = lock.acquire()
    with held:
        yield
