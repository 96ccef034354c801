"""Housekeeping: what a kept result or anything published needs stays, the rest goes."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from flows.cli.main import app
from models.errors import BadInput
from tasks.storage.artifacts import Handle, write_parquet
from tasks.storage.garbage_collection import sweep

DAY = 24 * 60 * 60


def aged(path: Path, days: float) -> Path:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


def artifact(number: int, days: float) -> Handle:
    handle = write_parquet("numbers", pa.table({"n": [number]}))
    aged(handle.file, days)
    return handle


def result(data: Path, stage: str, number: int, handle: Handle, days: float) -> Path:
    """A result as Prefect stores it: JSON inside JSON."""
    path = data / "cache" / f"{stage}-v1-{number:032x}"
    path.parent.mkdir(exist_ok=True, parents=True)
    inner = json.dumps({"__class__": "Thing", "data": {"handle": handle.model_dump()}})
    path.write_text(json.dumps({"metadata": {"storage_key": str(path)}, "result": inner}))
    return aged(path, days)


@pytest.fixture
def furnished(data_dir) -> Path:
    """A folder with young and old results, and everything that must never go."""
    young, old, published = artifact(1, 40), artifact(2, 40), artifact(3, 40)
    artifact(4, 40)  # nothing refers to it
    artifact(5, 0.5)  # nothing refers to it yet
    result(data_dir, "split", 1, young, 1)
    result(data_dir, "split", 2, old, 40)
    manifest = data_dir / "published" / "nightly" / "v1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"weights": published.model_dump()}))
    for name in ("results.duckdb", "answers.sqlite", "embeddings.sqlite"):
        aged_file(data_dir / name)
    aged_file(data_dir / "batches" / "1.json")
    aged_file(data_dir / "artifacts" / "quarantine" / "rows.parquet")
    aged_file(data_dir / "artifacts" / "numbers" / ".writing-old")
    (data_dir / "artifacts" / "numbers" / ".writing-new").write_text("x")
    (data_dir / "progress").mkdir()
    (data_dir / "progress" / "7-1.json").write_text("{}")
    (data_dir / "checkpoints").mkdir()
    for name in (f"split-v1-{1:032x}.pt", f"training-v3-{9:032x}.pt"):
        (data_dir / "checkpoints" / name).write_bytes(b"state")
    aged_file(data_dir / "checkpoints" / f"training-v3-{8:032x}.pt")
    return data_dir


def aged_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    aged(path, 400)


def everything(data: Path) -> set[str]:
    return {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}


def expected_to_go() -> dict[str, str]:
    numbers = {number: artifact_path(number) for number in (2, 4)}
    return {
        f"cache/split-v1-{2:032x}": "result is old",
        numbers[2]: "no result refers to it",
        numbers[4]: "no result refers to it",
        "artifacts/numbers/.writing-old": "a killed run was writing it",
        "progress/7-1.json": "its run has ended",
        f"checkpoints/split-v1-{1:032x}.pt": "its training is finished",
        f"checkpoints/training-v3-{8:032x}.pt": "its training was given up",
    }


def artifact_path(number: int) -> str:
    handle = write_parquet("numbers", pa.table({"n": [number]}))
    aged(handle.file, 40)
    return handle.path


def test_what_nothing_needs_goes_and_nothing_else(furnished):
    going = expected_to_go()
    before = everything(furnished)
    planned = sweep(keep_days=30, keep_count=1, dry_run=True)
    assert {removal.path: removal.why for removal in planned.removed} == going
    assert everything(furnished) == before, "a dry run removes nothing"
    assert planned.bytes == sum((furnished / path).stat().st_size for path in going)
    done = sweep(keep_days=30, keep_count=1)
    assert done.removed == planned.removed
    assert everything(furnished) == before - set(going)
    assert sweep(keep_days=30, keep_count=1).removed == []


def test_the_newest_results_of_a_stage_stay_however_old(data_dir):
    handles = [artifact(number, 90 + number) for number in range(4)]
    for number, handle in enumerate(handles):
        result(data_dir, "split", number, handle, 90 + number)
        result(data_dir, "other", number, handle, 60 + number)
    removed = {removal.path for removal in sweep(keep_days=70, keep_count=2).removed}
    # The two oldest of split go; all of other are young enough, and keep every artifact.
    assert removed == {f"cache/split-v1-{number:032x}" for number in (2, 3)}


def test_it_refuses_while_a_run_is_at_work(furnished):
    (furnished / "locks").mkdir()
    (furnished / "locks" / "free.lock").touch()
    before = everything(furnished)
    with FileLock(furnished / "locks" / "training-1.lock"):
        with pytest.raises(BadInput, match=r"a run is at work .*training-1.lock"):
            sweep(keep_days=0, keep_count=0)
    assert before <= everything(furnished)
    assert sweep(keep_days=0, keep_count=0).removed


def test_the_command_says_what_would_go(furnished):
    going = expected_to_go()
    arguments = ["gc", "--dry-run", "--keep-days", "30", "--keep-count", "1"]
    asked = CliRunner().invoke(app, [*arguments, "--json", "--data-dir", str(furnished)])
    assert asked.exit_code == 0, asked.output
    swept = json.loads(asked.stdout)
    assert swept["dry_run"]
    assert {removal["path"] for removal in swept["removed"]} == set(going)
    shown = CliRunner().invoke(app, [*arguments, "--data-dir", str(furnished)]).stdout
    assert "7 files, " in shown
    assert "bytes would be removed" in shown
    assert CliRunner().invoke(app, ["gc", "--keep-days", "-1"]).exit_code == 2
