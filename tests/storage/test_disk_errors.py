"""A disk that refuses: one sentence, exit code 2, and nothing that was there is harmed."""

import errno
import math
import os
import resource
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from models.errors import BadInput
from tasks.llm.answer_store import Answer, answer_store
from tasks.results.database import database
from tasks.storage import artifacts
from tasks.storage.artifacts import PROJECT_ROOT, require_writable, write_bytes, write_parquet
from tasks.storage.disk_errors import reason, writing
from tasks.training import checkpoint_files
from tasks.training.checkpoint_files import CheckpointFile

BIG = 1 << 20


def everything(data: Path) -> dict[str, bytes]:
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_refusal_names_the_path_and_what_to_do(data_dir, monkeypatch, number, words):
    kept = write_bytes("weights", ".bin", b"before")
    before = everything(data_dir)

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(artifacts.os, "fsync", refuse)
    with pytest.raises(BadInput, match=rf"artifacts/numbers: .*{words}.*\. .*run again"):
        write_parquet("numbers", pa.table({"n": [1]}))
    assert everything(data_dir) == before
    assert kept.verify()


def test_other_errors_pass_as_they_are():
    with pytest.raises(FileNotFoundError), writing(Path("x")):
        raise FileNotFoundError(errno.ENOENT, "gone")
    assert reason(ValueError("permission denied")) is None


def limited(code: str, data: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """Run Python code that may write no file beyond `limit` bytes: a real refusal, also of root."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={**os.environ, "LLMKT_DATA_DIR": str(data)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


CHECKPOINT = (
    "import torch; from tasks.training import checkpoint_files; checkpoint_files.SHARE = 1e9; "
    "from tasks.training.checkpoint_files import CheckpointFile; "
    f"CheckpointFile('key').save(lambda: {{'x': torch.zeros({BIG})}})"
)
WRITERS = {
    "artifact": "from tasks.storage.artifacts import write_bytes"
    "; write_bytes('weights', '.bin', bytes(BIG))",
    "result": "from tasks.storage.prefect_results import ResultFolder"
    "; from tasks.storage.artifacts import data_dir; "
    "ResultFolder(basepath=str(data_dir() / 'cache')).write_path('key', bytes(BIG))",
    "database": "from tasks.results.database import database\n"
    "with database() as c: c.execute('CREATE TABLE t AS SELECT random() x FROM range(1000000)')",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_store_reports_a_full_disk_in_one_sentence(data_dir, writer):
    write_bytes("weights", ".bin", b"before")
    before = everything(data_dir)
    code = f"BIG = {BIG}\n{WRITERS[writer]}"
    done = limited(code, data_dir, limit=200_000)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("models.errors.BadInput"), done.stderr
    assert "there is no space left on the disk. Free some" in last
    assert str(data_dir) in last
    assert before.items() <= everything(data_dir).items()
    left = [path for path in everything(data_dir) if ".writing-" in path]
    assert not left


def test_a_full_disk_keeps_the_last_checkpoint(data_dir, monkeypatch):
    import torch

    monkeypatch.setattr(checkpoint_files, "SHARE", math.inf)
    first = CheckpointFile("key")
    first.save(lambda: {"epoch": torch.tensor(1)})
    done = limited(CHECKPOINT, data_dir, limit=200_000)
    assert "key.pt: there is no space left" in done.stderr.strip().splitlines()[-1]
    assert CheckpointFile("key").newest() == {"epoch": torch.tensor(1)}


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys")
def test_a_folder_that_cannot_be_written_is_refused_at_once(monkeypatch):
    monkeypatch.setenv("LLMKT_DATA_DIR", "/sys/llmkt")
    for attempt in (
        require_writable,
        lambda: write_bytes("weights", ".bin", b""),
        lambda: database().__enter__(),
        lambda: answer_store().__enter__(),
    ):
        with pytest.raises(BadInput, match=r"/sys/llmkt.*cannot be written"):
            attempt()


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys")
def test_the_command_ends_with_one_sentence_and_exit_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "configs/ml-100k.yaml"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "LLMKT_DATA_DIR": "/sys/llmkt"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: /sys/llmkt")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_answers_that_were_paid_for_outlive_a_full_disk(data_dir):
    assert not data_dir.exists()

    def put(store, key: str, text: str) -> None:
        store.put(
            key, "openai", "m", Answer(text, 1, 1, 0.1, datetime(2026, 1, 1, tzinfo=UTC)), None
        )

    def put_again(error: Exception) -> None:
        with answer_store():
            raise error

    with answer_store() as store:
        put(store, "paid", "kept")
    with answer_store() as store:
        store._execute("PRAGMA max_page_count = 6")  # SQLite's own full disk
        with pytest.raises(sqlite3.OperationalError) as refusal:
            put(store, "next", "x" * BIG)
    with pytest.raises(BadInput, match=r"answers.sqlite: there is no space left"):
        put_again(refusal.value)
    with answer_store() as store:
        assert store.knows(["paid"])
        assert not store.knows(["next"])
    said = sqlite3.OperationalError("attempt to write a readonly database")
    assert "read-only" in (reason(said) or "")
