"""Helpers for tests of data sets: files, the stage on them, and rows in short."""

from pathlib import Path

from models.config import Dataset
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.storage.artifacts import read_parquet

HEADER = "user_id,item_id,rating,timestamp\n"


def write(folder: Path, name: str, content: str | bytes) -> str:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def load(settings: dict, demographics: tuple[str, ...] = ()):
    """The stage's hand-off for a `dataset` section."""
    config = Dataset.model_validate({"name": "toy", **settings})
    return interactions.fn(config, raw_files(config, demographics), demographics)


def rows(data) -> list[tuple]:
    """Interactions as (user, item, rating, timestamp)."""
    return [tuple(row.values()) for row in read_parquet(data.interactions).to_pylist()]


def catalogue(data) -> dict[str, tuple]:
    """Items as id: (title, year, genres)."""
    return {
        row["item_id"]: (row["title"], row["year"], row["genres"])
        for row in read_parquet(data.items).to_pylist()
    }


def dropped(data) -> dict[tuple[str, str], int]:
    """Rows dropped by (step, why)."""
    return {(drop.step, drop.why): drop.rows for drop in data.ingestion.dropped}
