"""Stage *split*: train, valid and test as three artifacts, so that later stages see no more."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.config import Split
from models.dataset import splitting
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEM, TIMESTAMP, USER
from tasks.dataset.outputs import Splits
from tasks.execution.stage import stage
from tasks.storage.artifact_batches import Stream, record_batches
from tasks.storage.artifacts import Handle, read_parquet, write_batches, write_bytes, write_parquet

PARTS = ("train", "valid", "test")


def split_files(config: Split) -> dict[str, Handle]:
    """The files of strategy files as raw artifacts, named by their content; else nothing.

    Doing this before the cached stage makes the stage's key depend on what the files hold.

    Raises:
        BadInput: if a file does not exist.
    """
    taken = {}
    for part in PARTS:
        path = getattr(config, part)
        if path is None:
            continue
        file = Path(path).expanduser()
        if not file.is_file():
            raise BadInput(f"split.{part}: {file} does not exist; correct the path")
        taken[part] = write_bytes("raw", ".tsv", file.read_bytes())
    return taken


@stage("split", version=1, cheap=True)
def split(config: Split, interactions: Handle, files: dict[str, Handle] | None = None) -> Splits:
    """Divide the interactions; see `models.dataset.splitting` for strategies and errors.

    Args:
        config: the strategy.
        interactions: schema `INTERACTIONS`.
        files: what `split_files` took in.
    """
    if files:
        train, valid, test = _as_given(config, interactions, files)
    else:
        train, valid, test = _divided(config, interactions)
    kept = train.rows + valid.rows + test.rows
    get_run_logger().info(
        "Split %s: %d train, %d valid, %d test, %d left out",
        config.strategy,
        train.rows,
        valid.rows,
        test.rows,
        interactions.rows - kept,
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
    if config.strategy != "random":
        timestamps = pq.read_table(stream.path, columns=[TIMESTAMP])[TIMESTAMP]
    parts = splitting.divide(stream.by_user(), timestamps, config)
    return [
        write_batches(
            "split",
            INTERACTIONS,
            record_batches(_of_part(stream, parts, code)),
            {"interactions": interactions},
            {**config.identity(), "part": part},
        )
        for code, part in enumerate(PARTS)
    ]


def _of_part(stream: Stream, parts: NDArray[np.int8], code: int) -> Iterator[pa.Table]:
    start = 0
    for table in stream.by_user():
        yield table.filter(pa.array(parts[start : start + table.num_rows] == code))
        start += table.num_rows


def _read_pairs(handle: Handle, part: str) -> pa.Table:
    """User and item of a tab-separated file; a first line that names them is a header."""
    path = handle.verify()
    with path.open(encoding="utf-8", errors="replace") as stream:
        first = stream.readline().rstrip("\r\n").split("\t")
    if len(first) < 2:
        raise BadInput(
            f"split.{part}: a line must hold user and item, with a tab between them; the first is "
            f"{first[0][:80]!r}"
        )
    names = [name.split(":")[0] for name in first]
    header = {USER, ITEM} <= set(names) or names[:2] == ["user", "item"]
    columns = [f"column {n}" for n in range(len(first))]
    user, item = (names.index(USER), names.index(ITEM)) if USER in names and header else (0, 1)
    columns[user], columns[item] = USER, ITEM
    text = pa.string()
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=columns, skip_rows=int(header)),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=[USER, ITEM],
                column_types={USER: text, ITEM: text},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise BadInput(
            f"split.{part} could not be read: {error}; mend or remove that row"
        ) from error
    for column in (USER, ITEM):
        if table[column].null_count:
            row = pc.indices_nonzero(pc.is_null(table[column]))[0].as_py() + 1 + header
            raise BadInput(f"split.{part}, row {row}: {column} is empty; fill it in")
    return table
