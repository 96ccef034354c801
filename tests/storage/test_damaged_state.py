"""Damaged state: one sentence with the file and the fix, at once, or healed."""

import json
import random
import sqlite3
import time
from contextlib import closing

import duckdb
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from models.errors import BadInput
from tasks.execution.prefect_server import require_prefect
from tasks.execution.progress import _read
from tasks.llm.answer_store import answer_store
from tasks.llm.batch_ledger import open_submissions, prepare
from tasks.results.database import create_tables, database, database_path
from tasks.results.queries import comparison_rows, query
from tasks.storage.garbage_collection import sweep

GARBAGE = {
    "empty": lambda _: b"",
    "text": lambda _: b"a lock and a block",
    "random": lambda _: random.Random(1).randbytes(40_000),
    "cut": lambda whole: whole[: len(whole) // 3],
    "flipped": lambda whole: bytes(
        byte ^ 255 if place % 97 == 0 and place > 4096 else byte for place, byte in enumerate(whole)
    ),
    "headers": lambda whole: whole[:4096] + bytes(8192) + whole[12288:],
}


def at_once(call, match: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadInput, match=match):
        call()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("harm", GARBAGE)
def test_a_damaged_results_database(data_dir, harm):
    with database() as connection:
        create_tables(connection)
        connection.execute("CREATE TABLE big AS SELECT range i, hash(range) h FROM range(20000)")
    path = database_path()
    path.write_bytes(GARBAGE[harm](path.read_bytes()))
    for ask in (comparison_rows, lambda: query("SELECT sum(h) FROM big"), filled):
        at_once(ask, r"results\.duckdb: damaged, .*Move it away and run `llmkt run")
    done = CliRunner().invoke(app, ["compare", "--data-dir", str(data_dir)])
    assert done.exit_code == 2
    path.unlink()  # as the sentence says
    filled()


def filled() -> None:
    with database() as connection:
        create_tables(connection)
        connection.execute("SELECT sum(h) FROM big") if "big" in str(
            connection.execute("SHOW TABLES").fetchall()
        ) else None


def test_a_database_with_other_tables(data_dir):
    data_dir.mkdir()
    with duckdb.connect(str(database_path())) as connection:
        connection.execute("CREATE VIEW runs AS SELECT 1 AS a")
    at_once(comparison_rows, "not a results database of this version")


@pytest.mark.parametrize("harm", GARBAGE)
def test_a_damaged_answer_store(data_dir, harm):
    with answer_store():
        pass
    path = data_dir / "answers.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany(
            "INSERT INTO answers VALUES (?, 'p', 'm', ?, 1, 1, 0, 0, 0, 0)",
            [(f"{n:064}", "a text " * 40) for n in range(500)],
        )
    path.write_bytes(GARBAGE[harm](path.read_bytes()))
    for more in ("-wal", "-shm"):
        path.with_name(path.name + more).unlink(missing_ok=True)

    def read():
        with answer_store() as store:
            store._execute("SELECT sum(length(text)) FROM answers").fetchone()

    if harm == "empty":  # SQLite's own form of a new database
        return read()
    return at_once(read, r"answers\.sqlite: damaged, .*move it away")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"endpoint": 1, "keys": [1]}', "\x00"])
def test_a_damaged_record_of_a_batch(data_dir, content):
    prepare("there", [{"custom_id": "a"}])
    assert [found.keys for found in open_submissions("there")] == [{"a"}]
    (data_dir / "batches" / "other.json").write_text(content)
    at_once(lambda: list(open_submissions("there")), r"other\.json: damaged\. .*move it away")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"description": 1, "done": []}'])
def test_damaged_progress_and_results_are_passed_over(data_dir, content):
    for name in ("progress/a.json", f"cache/split-v1-{'0' * 32}", "downloads/x.json"):
        file = data_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert _read(data_dir / "progress" / "a.json") is None
    sweep(keep_days=30, keep_count=20, dry_run=True)


@pytest.fixture
def no_server(tmp_path):
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
    from prefect.settings import temporary_settings as settings

    path = tmp_path / "prefect.db"
    url = {PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}
    with settings(url, restore_defaults={PREFECT_API_URL}):
        yield path


@pytest.mark.parametrize("harm", ["text", "random", "cut"])
def test_a_damaged_database_of_prefect(no_server, harm):
    require_prefect()  # there is none yet
    with sqlite3.connect(no_server) as connection:
        connection.execute("CREATE TABLE a AS SELECT 1")
    require_prefect()
    no_server.write_bytes(GARBAGE[harm](no_server.read_bytes()))
    at_once(require_prefect, r"prefect\.db: damaged, .*Move it away")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/api", "foo", "", "file:///etc/passwd", "http://me:secret@[::1]:9/api"],
)
def test_a_server_that_is_not_there(url, data_dir):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        at_once(require_prefect, "PREFECT_API_URL.*: no Prefect server .* or unset PREFECT_API_URL")
        with pytest.raises(BadInput) as error:
            require_prefect()
        assert "secret" not in str(error.value)
        done = CliRunner().invoke(app, ["run", "x.yaml", "--data-dir", str(data_dir)])
        assert (done.exit_code, "PREFECT_API_URL" in done.stderr) == (2, True)


def test_another_server_is_no_prefect_server(httpserver):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    httpserver.expect_request("/api/health").respond_with_data("no", status=404)
    with temporary_settings({PREFECT_API_URL: httpserver.url_for("/api")}):
        at_once(require_prefect, r"is no Prefect server \(HTTP 404\)")
    httpserver.clear()
    httpserver.expect_request("/api/health").respond_with_data(json.dumps(True))
    with temporary_settings({PREFECT_API_URL: httpserver.url_for("/api")}):
        require_prefect()
