"""Stage *targets*: embeddings reduced to the width of a tapped layer."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect.logging import get_run_logger

from models.arrow import Floats, Singles
from models.config import ARMS, ArmName, Targets
from models.config.arms import ControlInputs
from models.config.plugins import is_path
from models.embeddings.sources import all_metadata
from models.embeddings.text_batches import to_matrix, to_table
from models.schemas import EMBEDDING, TARGET, vectors
from models.targets.kept_reducers import Unusable, dump, load, refit_reason, unchanged
from models.targets.reduction import fit, settings, standardised
from tasks.execution.stage import stage
from tasks.storage.artifact_batches import Stream
from tasks.storage.artifacts import Handle, read_parquet, write_batches, write_bytes, write_parquet
from tasks.targets.outputs import Kept, Targeted

AT_ONCE = 1 << 15
"""Embeddings per batch."""


@stage("targets", version=9)
def targets(
    config: Targets,
    embeddings: Handle,
    width: int | None,
    keep: bool = False,
    kept: Kept | None = None,
) -> Targeted:
    """Reduce the embeddings of every user (item) to `width`; for errors see `fit`.

    `embeddings` are `vectors("embedding", d, key)`; a `width` of None keeps all columns, which
    needs the reduction none. `keep` stores the reducer for later runs. `kept` is an earlier run's:
    until its policy asks for a refit, users with the embedding of that run keep that run's target
    to the bit, and all others are transformed.
    """
    with one_thread():
        if kept is None or is_path(config.reduction):  # which cannot place what is new
            return _fitted(config, embeddings, width, keep, "first fit")
        made = _transformed(config, embeddings, width, kept)
        if isinstance(made, Targeted):
            return made
        get_run_logger().info("The reducer is fitted anew: %s", made)
        return _fitted(config, embeddings, width, True, made)


def one_thread() -> AbstractContextManager[object]:
    """Let BLAS use one thread: how it rounds sums depends on the number, and so on the machine."""
    from threadpoolctl import threadpool_limits

    limited: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limited


def _fitted(
    config: Targets, embeddings: Handle, width: int | None, keep: bool, why: str
) -> Targeted:
    """Targets by a reducer of this run, in batches of about one size."""
    stream = Stream.of(embeddings)
    at_once = ceil(stream.rows / max(1, ceil(stream.rows / AT_ONCE)))

    def source() -> Iterator[Singles]:
        for table in stream.tables(at_once, [EMBEDDING]):
            yield to_matrix(table[EMBEDDING])

    fitted = fit(source, stream.rows, width, config)
    key, columns = pq.read_schema(stream.path).names[0], len(fitted.reducer.centre)

    def tables() -> Iterator[pa.Table]:
        start = 0
        for table in stream.tables(at_once):
            made = fitted.targets(to_matrix(table[EMBEDDING]), start)
            yield to_table(table[key].combine_chunks(), TARGET, made, key)
            start += table.num_rows

    return Targeted(
        targets=write_batches(
            "targets",
            vectors(TARGET, columns, key),
            tables(),
            {"embeddings": embeddings},
            {**config.identity(), "width": columns},
        ),
        reduction=config.reduction or "umap",
        width=columns,
        embeddings=embeddings,
        reducer=write_bytes("reducers", ".safetensors", dump(fitted.reducer)) if keep else None,
        fitted_on=embeddings if keep else None,
        refit=why,
    )


def _transformed(
    config: Targets, embeddings: Handle, width: int | None, kept: Kept
) -> Targeted | str:
    """Old targets of unchanged embeddings, new ones of the others; or why a refit is due."""
    now = read_parquet(embeddings)
    embedded = to_matrix(now[EMBEDDING])
    try:
        reducer = load(kept.reducer.verify().read_bytes())
    except Unusable as error:
        return str(error)
    if reducer.settings != settings(config, width, embedded.shape[1]):
        return "other settings"
    reason = refit_reason(kept.refit, read_parquet(kept.fitted_on), now)
    if reason:
        return reason
    rows = unchanged(read_parquet(kept.embeddings), now)
    is_new = rows < 0
    matrix = to_matrix(read_parquet(kept.targets)[TARGET])[rows]
    if is_new.any():
        matrix[is_new] = reducer.transform(embedded[is_new])
    lost = int((~np.isfinite(matrix).all(axis=1)).sum())
    if lost:
        return f"{lost} without a neighbour at the fit"
    made = kept.targets
    if not np.array_equal(rows, np.arange(made.rows)):  # somebody changed, came or left
        inputs = {"embeddings": embeddings, "reducer": kept.reducer, "earlier": kept.targets}
        made = _write(now, matrix, inputs, {**config.identity(), "width": matrix.shape[1]})
    return Targeted(
        targets=made,
        reduction=config.reduction or "umap",
        width=matrix.shape[1],
        embeddings=embeddings,
        reducer=kept.reducer,
        fitted_on=kept.fitted_on,
        refit="kept",
        unchanged=int((~is_new).sum()),
        transformed=int(is_new.sum()),
    )


def _write(
    like: pa.Table, matrix: Singles, inputs: dict[str, Handle], config: dict[str, object]
) -> Handle:
    """Write targets, float32 (n, width), of the users (items) of another table of vectors."""
    key = like.column_names[0]
    table = to_table(like[key].combine_chunks(), TARGET, matrix, key)
    return write_parquet("targets", table, inputs, config)


def _factors(*log_of_subjects: Any) -> Floats:
    """See `models.recommenders.ials.log_factors`; torch is imported when it is asked for."""
    from models.recommenders.ials import log_factors

    return log_factors(*log_of_subjects)


@stage("controls", version=5)
def controls(
    config: Targets, arm: ArmName, targeted: Handle, train: Handle, items: Handle, seed: int
) -> Targeted:
    """Make a control arm's targets for the users (items), and of the width, of `targeted`.

    `train` and `items` have the schemas `INTERACTIONS` and `ITEMS`; with `seed`, the training's,
    shuffled and noise are drawn anew.

    Raises:
        BadInput: if the data has nothing to make the control of.
    """
    table = read_parquet(targeted)
    key, profiles = table.column_names[0], to_matrix(table[TARGET])
    log, catalogue = read_parquet(train), read_parquet(items)
    standardise = partial(standardised, width=profiles.shape[1], config=config)
    subjects = table[key].combine_chunks()
    make_targets = ARMS[arm].make_targets
    assert make_targets is not None
    given = ControlInputs(
        profiles,
        key,
        subjects.to_pylist(),
        log,
        catalogue,
        seed,
        config.seed,
        standardise,
        metadata=partial(all_metadata, catalogue, log, subjects, key),
        factors=partial(_factors, log, subjects, key, config.seed),
    )
    with one_thread():
        made = make_targets(given)
    made_of = {"targets": targeted, "train": train, "items": items}
    written = _write(table, made, made_of, {**config.identity(), "arm": arm, "seed": seed})
    return Targeted(targets=written, reduction=arm, width=made.shape[1])
