"""Stage *embeddings*: every distinct profile text once through a text model.

Vectors are kept per text in `embeddings.sqlite` beside the artifacts, committed batch by batch:
a changed prompt costs only the changed texts, a kill only one batch, and no text is paid for
twice.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.arrow import Singles
from models.config import Embeddings, Side
from models.embeddings.text_batches import Texts, batches, checked, distinct_texts, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING
from tasks.embeddings.outputs import Embedded
from tasks.embeddings.packed_vectors import shipped
from tasks.embeddings.text_models import (
    TextModel,
    embed_on_worker,
    identity,
    model_name,
    open_text_model,
)
from tasks.embeddings.vector_import import import_embeddings
from tasks.embeddings.vector_store import VectorStore, text_keys, vector_store
from tasks.execution.progress import track
from tasks.execution.stage import stage
from tasks.execution.worker_pool import on_cluster, spread
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle, write_batches
from tasks.storage.data_dir import data_lock

PROFILES_AT_ONCE = 1 << 15
"""Profiles whose texts and vectors are in memory at once."""


@stage("embeddings", version=2)
def embeddings(
    config: Embeddings,
    profiles: Handle | None,
    train: Handle | None = None,
    imported: dict[str, Handle] | None = None,
    side: Side = "users",
) -> Embedded:
    """Make one vector per user or item with a text, or take it from an imported file.

    `profiles` has the schema `PROFILES`, or is None for imported vectors. These are in `imported`,
    the files of `vector_files`, and belong to the users or items (`side`) of `train`, schema
    `INTERACTIONS`.

    Raises:
        BadInput: if there is no text, the text model is missing or answers wrongly, or the imported
            file is faulty.
    """
    if imported and train:
        return import_embeddings(config, imported, train, side)
    assert profiles is not None
    lock = data_lock("embeddings")  # keeps a second run waiting, which would pay for the same texts
    with lock, track("Embeddings", profiles.rows) as progress, vector_store() as store:
        embedding = _Embedding(config, store, progress)
        tables = embedding.tables(profiles)
        first = next(tables, None)
        if first is None:
            raise BadInput("profiles: nobody has a text, so there is nothing to embed.")
        written = write_batches(
            "embeddings",
            first.schema,
            chain([first], tables),
            {"profiles": profiles},
            config.identity(),
        )
    warnings = embedding.warnings()
    for warning in warnings:
        get_run_logger().warning("%s", warning)
    get_run_logger().info(
        f"Embedded {embedding.cached + embedding.embedded} distinct texts of {written.rows} "
        f"profiles ({first.schema.names[0]}) with {model_name(config)}: {embedding.cached} from "
        f"the store, {embedding.embedded} new"
    )
    return Embedded(
        embeddings=written,
        model=model_name(config),
        width=first.schema.field(EMBEDDING).type.list_size,
        texts_cached=embedding.cached,
        texts_embedded=embedding.embedded,
        warnings=warnings,
    )


@dataclass
class _Embedding:
    """One run of the stage: its text model, its store, and how far it is.

    `cached` and `embedded` count distinct texts; a text that comes again in a later batch of
    profiles counts again if it was there before.
    """

    config: Embeddings
    store: VectorStore
    progress: Callable[[int], None]
    width: int | None = None
    done: int = 0
    cached: int = 0
    embedded: int = 0
    cut: int = 0
    limit: int = 0
    """Tokens that the text model read of each of the `cut` texts."""

    def warnings(self) -> tuple[str, ...]:
        """Say how many texts were longer than the text model reads."""
        if not self.cut:
            return ()
        return (
            f"{self.cut} of {self.cached + self.embedded} texts are longer than the {self.limit} "
            f"tokens that {model_name(self.config)} reads; the rest of each is ignored",
        )

    def tables(self, profiles: Handle) -> Iterator[pa.Table]:
        """The vectors of all who have a text, batch by batch."""
        for part in Stream.of(profiles).tables(PROFILES_AT_ONCE):
            texts = distinct_texts(part)
            if texts.distinct:
                matrix = self._vectors(texts)
                yield to_table(texts.subjects, EMBEDDING, matrix[texts.rows], texts.key)
            self.done += part.num_rows
            self.progress(self.done)

    def _vectors(self, texts: Texts) -> Singles:
        """One vector per distinct text."""
        keys = text_keys(self.config, texts.distinct)
        known, vectors = self.store.read(keys)
        self.cached += self.store.n_read_from_before()
        if len(known) < len(keys):
            lacking = np.setdiff1d(np.arange(len(keys)), known)
            found = shipped([keys[index] for index in lacking])
            self.store.write(*found)
            self.cached += len(found[0])
            known, vectors = self.store.read(keys)
        missing = np.setdiff1d(np.arange(len(keys)), known)
        if len(missing):
            self.width = vectors.shape[1] if len(known) else self.width
            self._embed(texts, keys, missing)
            self.embedded += len(missing)
            vectors = self.store.read(keys)[1]
        self.width = vectors.shape[1]
        cut = [tokens for tokens in self.store.cut_at() if tokens is not None]
        self.cut, self.limit = self.cut + len(cut), max([self.limit, *cut])
        return vectors

    def _embed(self, texts: Texts, keys: list[bytes], missing: NDArray[np.intp]) -> None:
        """Embed the texts at the indices `missing`, and put each batch into the store at once."""
        wanted = [texts.distinct[index] for index in missing]
        done = self.done + len(keys) - len(missing)
        self.progress(done)
        with open_text_model(self.config, wanted) as model:
            lengths = [min(length, model.limit or length) for length in model.lengths]
            parts = list(batches(lengths, model.batch_size))
            answers = _answers(self.config, model, ([wanted[i] for i in part] for part in parts))
            for part, rows in zip(parts, answers, strict=True):
                owners = [texts.owners[index] for index in missing[part]]
                matrix = checked(rows, owners, self.width, texts.key)
                cut_at = [model.cut_at(index) for index in part]
                self.store.write([keys[index] for index in missing[part]], matrix, cut_at)
                self.width = matrix.shape[1]
                done += len(part)
                self.progress(done)


def _answers(
    config: Embeddings, model: TextModel, parts: Iterable[list[str]]
) -> Iterator[list[Any]]:
    """Each batch's vectors; the workers of a cluster, if there is one, load a local model."""
    if config.provider == "sentence-transformers" and on_cluster():
        return spread(partial(embed_on_worker, config, identity(config)), parts)
    return map(model.embed, parts)
