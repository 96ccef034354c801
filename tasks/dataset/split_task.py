"""Stage *split*: train, valid and test as three artifacts, so that later stages see no more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.config import Split
from models.dataset import splitting
from models.dataset.delimited_text import Dialect, column_names, read
from models.dataset.record_blocks import all_records
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEM, TIMESTAMP, USER
from tasks.dataset.outputs import Splits
from tasks.execution.stage import stage
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle, read_parquet, write_batches, write_file, write_parquet
from tasks.storage.text_files import text_source

PARTS = ("train", "valid", "test")


def split_files(config: Split) -> dict[str, Handle]:
    """Write the files of strategy files as raw artifacts; nothing for other strategies.

    Doing this before the cached stage makes the stage's key depend on what the files hold.

    Raises:
        BadInput: if a file does not exist.
    """
    files = {}
    for part in PARTS:
        path = getattr(config, part)
        if path is None:
            continue
        file = Path(path).expanduser()
        if not file.is_file():
            raise BadInput(f"split.{part}: {file} does not exist. Correct the path.")
        files[part] = write_file("raw", ".tsv", file)
    return files


@stage("split", version=1, cheap=True)
def split(config: Split, interactions: Handle, files: dict[str, Handle] | None = None) -> Splits:
    """Divide the interactions; see `models.dataset.splitting` for strategies and errors."""
    if files:
        train, valid, test = _as_given(config, interactions, files)
    else:
        train, valid, test = _divided(config, interactions)
    left_out = interactions.rows - train.rows - valid.rows - test.rows
    get_run_logger().info(
        f"Split {config.strategy}: {train.rows} train, {valid.rows} valid, {test.rows} test, "
        f"{left_out} left out"
    )
    return Splits(train=train, valid=valid, test=test)


def _as_given(config: Split, interactions: Handle, files: dict[str, Handle]) -> list[Handle]:
    given = {part: _read_pairs(handle, part) for part, handle in files.items()}
    parts = splitting.split_as_given(read_parquet(interactions), given, config)
    inputs = {"interactions": interactions, **files}
    return [
        write_parquet("split", table, inputs, {**config.identity(), "part": part})
        for part, table in zip(PARTS, parts, strict=True)
    ]


def _divided(config: Split, interactions: Handle) -> list[Handle]:
    """One pass finds every row's part, one byte each; then one pass per part writes it."""
    stream = Stream.of(interactions)
    timestamps = pa.chunked_array([], pa.int64())
    if config.by_time:
        timestamps = pq.read_table(stream.path, columns=[TIMESTAMP])[TIMESTAMP]
    parts = splitting.divide(stream.by_user(), timestamps, config)
    return [
        write_batches(
            "split",
            INTERACTIONS,
            _part(stream, parts, code),
            {"interactions": interactions},
            {**config.identity(), "part": part},
        )
        for code, part in enumerate(PARTS)
    ]


def _part(stream: Stream, parts: NDArray[np.int8], code: int) -> Iterator[pa.Table]:
    start = 0
    for table in stream.by_user():
        yield table.filter(pa.array(parts[start : start + table.num_rows] == code))
        start += table.num_rows


def _read_pairs(handle: Handle, part: str) -> pa.Table:
    """User and item of a tab-separated file; a first line that names them is a header."""
    file = f"split.{part}"
    source, dialect = text_source(handle.verify(), file), Dialect("\t", quoted=False)
    names = column_names(source, dialect, file)
    if len(names) < 2:
        raise BadInput(
            f"{file}: a line must hold user and item, with a tab between them; the first is "
            f"{names[0][:80]!r}. Separate values by tabs."
        )
    wanted = ["user", "item"] if names[:2] == ["user", "item"] else [USER, ITEM]
    if not set(wanted) <= set(names):
        columns = (*wanted, *(str(n) for n in range(2, len(names))))
        dialect = replace(dialect, header=False, names=columns)
    blocks = read(source, dialect, file, wanted)
    table = all_records(blocks, file, wanted, filled=wanted).rename_columns([USER, ITEM])
    return table.cast(pa.schema([INTERACTIONS.field(USER), INTERACTIONS.field(ITEM)]))
