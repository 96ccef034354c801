"""Embeddings that do not fit into memory, reduced in batches from file to file."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.config import Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.schemas import EMBEDDING, TARGET, vectors
from models.targets import out_of_core
from models.targets.out_of_core import Moments
from models.targets.reducers import Reducer, scaled
from tasks.storage.artifact_batches import Stream, record_batches
from tasks.storage.artifacts import Handle, data_dir, write_batches
from tasks.storage.disk_errors import writing

WHOLE = 1 << 16
"""Up to so many embeddings are held at once, by float64; UMAP has its own limit, `fit_sample`."""
AT_ONCE = 1 << 15
"""Embeddings per batch otherwise. UMAP spends three times the epochs on 10,000 or fewer."""


def fits_in_memory(config: Targets, rows: int) -> bool:
    """Whether to reduce all embeddings at once."""
    return out_of_core.fits_in_memory(config, rows, WHOLE)


def reduce_in_batches(
    config: Targets, embeddings: Handle, width: int | None
) -> tuple[Handle, Reducer]:
    """Write `vectors("target", width, key)` in batches.

    Three passes: to fit, to reduce and measure, to centre and scale.

    Args:
        config: the targets' section.
        embeddings: `vectors("embedding", d, key)`.
        width: as in the stage.

    Raises:
        BadInput: as `models.targets.reduction.fit`.
    """
    stream = Stream.of(embeddings)
    at_once = -(-stream.rows // -(-stream.rows // AT_ONCE))  # all batches of about one size

    def source() -> Iterator[NDArray[np.float32]]:
        for table in stream.tables(at_once, [EMBEDDING]):
            yield to_matrix(table[EMBEDDING])

    reduction, moments = out_of_core.fit(source, stream.rows, width, config), Moments()
    schema = pq.read_schema(stream.path)
    key, columns = schema.names[0], schema.field(EMBEDDING).type.list_size
    with _spilled() as file:
        for batch in reduction.reduced(source):
            moments.add(batch)
            file.append(batch)
        reducer = out_of_core.finish(reduction, moments, width, columns, config)
        out = len(reducer.centre)

        def tables() -> Iterator[pa.Table]:
            batches = file.batches(out)
            for table, batch in zip(stream.tables(at_once, [key]), batches, strict=True):
                matrix = scaled(batch, reducer.centre, reducer.scale)
                yield to_table(table[key].combine_chunks(), TARGET, matrix, key)

        written = write_batches(
            "targets",
            vectors(TARGET, out, key),
            record_batches(tables()),
            {"embeddings": embeddings},
            {**config.identity(), "width": out},
        )
    return written, reducer


@dataclass
class _Spill:
    """Batches of coordinates on disk, float64, to be read once more."""

    file: BinaryIO
    rows: list[int]

    def append(self, batch: NDArray[np.float64]) -> None:
        self.file.write(np.ascontiguousarray(batch).data)
        self.rows.append(len(batch))

    def batches(self, width: int) -> Iterator[NDArray[np.float64]]:
        self.file.seek(0)
        for rows in self.rows:
            read = self.file.read(rows * width * 8)
            yield np.frombuffer(read).reshape(rows, width)


@contextmanager
def _spilled() -> Iterator[_Spill]:
    """A file of its own, gone afterwards."""
    home = data_dir() / "scratch"
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            yield _Spill(file, [])
