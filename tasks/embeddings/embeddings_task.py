"""Stage *embeddings*: every distinct profile text once through a text model.

Vectors are kept per text in `embeddings.sqlite` beside the artifacts, committed batch by batch:
a changed prompt costs only the changed texts, a kill only one batch, and no text is paid for
twice.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.config import Embeddings, Side
from models.embeddings.text_batches import (
    Texts,
    batches,
    checked,
    distinct_texts,
    has_texts,
    to_table,
)
from models.errors import BadInput
from models.schemas import EMBEDDING
from tasks.embeddings.outputs import Embedded
from tasks.embeddings.text_models import (
    TextModel,
    batch_size,
    embed_elsewhere,
    identity,
    model_name,
    open_text_model,
)
from tasks.embeddings.vector_import import import_embeddings
from tasks.embeddings.vector_store import VectorStore, _keys, _vector_store
from tasks.execution.progress import track
from tasks.execution.stage import stage
from tasks.execution.worker_pool import on_cluster, spread
from tasks.storage.artifact_batches import Stream, record_batches
from tasks.storage.artifacts import Handle, data_dir, write_batches
from tasks.storage.disk_errors import writing

PROFILES_AT_ONCE = 1 << 15
"""Profiles whose texts and vectors are in memory at once."""


@stage("embeddings", version=1)
def embeddings(
    config: Embeddings,
    profiles: Handle | None,
    train: Handle | None = None,
    imported: dict[str, Handle] | None = None,
    side: Side = "users",
) -> Embedded:
    """One vector per user or item; those without a text, or not in an imported file, get no row.

    Args:
        config: the text model, or the imported file's columns.
        profiles: schema `PROFILES`, whose texts are embedded; None for imported vectors.
        train: import only: schema `INTERACTIONS`, whose users (items) the vectors belong to.
        imported: import only: from `vector_files`.
        side: import only: whose vectors they are; texts say it themselves.

    Raises:
        BadInput: if there is no text, the text model cannot be had, its answer is wrong, or the
            imported file is.
    """
    if imported and train:
        return import_embeddings(config, imported, train, side)
    assert profiles is not None
    tally = _Tally()
    with _vectors_of(config, profiles, tally) as tables:
        first = next(tables, None)
        if first is None:
            raise BadInput("profiles: nobody has a text, so there is nothing to embed")
        written = write_batches(
            "embeddings",
            first.schema,
            record_batches(chain([first], tables)),
            {"profiles": profiles},
            config.identity(),
        )
    get_run_logger().info(
        "Embedded %d distinct texts of %d subjects (%s) with %s: %d from the store, %d anew",
        tally.cached + tally.embedded,
        written.rows,
        first.schema.names[0],
        model_name(config),
        tally.cached,
        tally.embedded,
    )
    return Embedded(
        embeddings=written,
        model=model_name(config),
        width=first.schema.field(EMBEDDING).type.list_size,
        texts_cached=tally.cached,
        texts_embedded=tally.embedded,
    )


@dataclass
class _Tally:
    """Distinct texts so far; one that comes again in a later batch of profiles counts again."""

    cached: int = 0
    embedded: int = 0


@contextmanager
def _vectors_of(
    config: Embeddings, profiles: Handle, tally: _Tally
) -> Iterator[Iterator[pa.Table]]:
    """The vectors of all who have a text, made and yielded batch by batch.

    The lock keeps a second run waiting rather than paying for the same texts.
    """
    lock = data_dir() / "locks" / "embeddings.lock"
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with (
        track("Embeddings", profiles.rows) as progress,
        FileLock(lock),
        _vector_store(data_dir() / "embeddings.sqlite") as store,
    ):

        def tables() -> Iterator[pa.Table]:
            done, width = 0, None
            for part in Stream.of(profiles).tables(PROFILES_AT_ONCE):
                if has_texts(part):
                    texts = distinct_texts(part)
                    later = partial(_add, progress, done)
                    matrix = _embed(config, texts, store, width, later, tally)
                    width = matrix.shape[1]
                    yield to_table(texts.subjects, EMBEDDING, matrix[texts.rows], texts.key)
                done += part.num_rows
            progress(done)

        yield tables()


def _add(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _embed(
    config: Embeddings,
    texts: Texts,
    store: "VectorStore",
    width: int | None,
    progress: Callable[[int], None],
    tally: _Tally,
) -> NDArray[np.float32]:
    """One vector per distinct text."""
    keys = _keys(config, texts.distinct)
    known, vectors = store.read(keys)
    tally.cached += store.n_read_from_before()
    missing = np.setdiff1d(np.arange(len(keys)), known)
    progress(len(known))
    if len(missing):
        width = vectors.shape[1] if len(known) else width
        _embed_missing(config, texts, missing, width, keys, store, progress)
        tally.embedded += len(missing)
        vectors = store.read(keys)[1]
    return vectors


def _embed_missing(
    config: Embeddings,
    texts: Texts,
    missing: NDArray[np.intp],
    width: int | None,
    keys: list[bytes],
    store: "VectorStore",
    progress: Callable[[int], None],
) -> None:
    """Embed the texts at the indices `missing` and put each batch into the store at once."""
    wanted = [texts.distinct[index] for index in missing]
    done = len(keys) - len(missing)
    with open_text_model(config, wanted) as model:
        parts = [missing[batch] for batch in batches(model.lengths, batch_size(config))]
        embedded = _embedded(
            config, model, ([texts.distinct[i] for i in indices] for indices in parts)
        )
        for indices, rows in zip(parts, embedded, strict=True):
            matrix = checked(rows, [texts.owners[index] for index in indices], width, texts.key)
            store.write([keys[index] for index in indices], matrix)
            width = matrix.shape[1]
            done += len(indices)
            progress(done)


def _embedded(
    config: Embeddings, model: TextModel, parts: Iterable[list[str]]
) -> Iterator[list[Any]]:
    """Each batch's vectors; a local model is loaded by a cluster's workers, if there is one."""
    if config.provider == "sentence-transformers" and on_cluster():
        return spread(partial(embed_elsewhere, config, identity(config)), parts)
    return map(model.embed, parts)
