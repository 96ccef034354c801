"""Stage *targets*: embeddings reduced to the width of a tapped layer."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect.logging import get_run_logger

from models.config import ArmName, Targets
from models.embeddings.text_batches import to_matrix, to_table
from models.schemas import EMBEDDING, TARGET
from models.targets.control_arms import ControlInputs, control_targets
from models.targets.reducers import Embedded, Reducer, Unusable, dump, load, refit_reason, unchanged
from models.targets.reduction import fit, settings
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, read_parquet, write_bytes, write_parquet
from tasks.targets.out_of_core import fits_in_memory, reduce_in_batches
from tasks.targets.outputs import Kept, Targeted


@stage("targets", version=4)
def targets(
    config: Targets,
    embeddings: Handle,
    width: int | None,
    keep: bool = False,
    kept: Kept | None = None,
) -> Targeted:
    """Reduce the embeddings of every user (item) to `width`; for errors see `fit`.

    Args:
        config: the targets' section.
        embeddings: `vectors("embedding", d, key)`.
        width: decides; whether it is `config.width` or a layer's is the caller's business. None
            keeps all columns, which needs the reduction none.
        keep: store the reducer, for later runs.
        kept: an earlier run's reducer. Until its policy asks for a refit, who has the embedding
            of that run keeps that run's target to the bit, and all others are transformed.
    """
    if kept is None:
        return _fitted(config, embeddings, width, keep, "first fit")
    now = _embedded(embeddings)
    reducer = _usable(kept, settings(config, width, now.matrix.shape[1]))
    if isinstance(reducer, Reducer):
        key = _key(embeddings)
        reason = refit_reason(kept.refit, _embedded(kept.fitted_on), now, key)
        result = reason or _transformed(config, embeddings, now, reducer, kept)
    else:
        result = reducer
    if isinstance(result, str):
        get_run_logger().info("The reducer is fitted anew: %s", result)
        return _fitted(config, embeddings, width, True, result)
    return result


def _fitted(
    config: Targets, embeddings: Handle, width: int | None, keep: bool, why: str
) -> Targeted:
    if fits_in_memory(config, embeddings.rows):
        now = _embedded(embeddings)
        reducer, matrix = fit(now.matrix, width, config)
        made = _write(config, embeddings, now.ids, matrix)
    else:
        get_run_logger().info("Targets of %d embeddings are made in batches", embeddings.rows)
        made, reducer = reduce_in_batches(config, embeddings, width)
    return Targeted(
        targets=made,
        reduction=config.reduction or "umap",
        width=len(reducer.centre),
        embeddings=embeddings,
        reducer=write_bytes("reducers", ".safetensors", dump(reducer)) if keep else None,
        fitted_on=embeddings if keep else None,
        refit=why,
    )


def _usable(kept: Kept, wanted: dict[str, object]) -> Reducer | str:
    """The kept reducer, or why it is of no use."""
    try:
        # Its sha256 is verified first: only what this project wrote is unpickled.
        reducer = load(kept.reducer.verify().read_bytes())
    except Unusable as error:
        return str(error)
    return reducer if reducer.settings == wanted else "other settings"


def _transformed(
    config: Targets, embeddings: Handle, now: Embedded, reducer: Reducer, kept: Kept
) -> Targeted | str:
    """Old targets of unchanged embeddings, new ones of the others; or why that cannot be."""
    rows = unchanged(_embedded(kept.embeddings), now)
    before = to_matrix(read_parquet(kept.targets)[TARGET])
    is_new = rows < 0
    matrix = before[rows]
    if is_new.any():
        matrix[is_new] = reducer.transform(now.matrix[is_new])
    lost = int((~np.isfinite(matrix).all(axis=1)).sum())
    if lost:
        return f"{lost} without a neighbour at the fit"
    nothing_new = len(rows) == len(before) and (rows == np.arange(len(rows))).all()
    return Targeted(
        targets=kept.targets if nothing_new else _write(config, embeddings, now.ids, matrix, kept),
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
    config: Targets,
    embeddings: Handle,
    ids: pa.Array,
    matrix: NDArray[np.float32],
    kept: Kept | None = None,
) -> Handle:
    inputs = {"embeddings": embeddings}
    if kept is not None:
        inputs |= {"reducer": kept.reducer, "earlier": kept.targets}
    known = {**config.identity(), "width": matrix.shape[1]}
    return write_parquet("targets", to_table(ids, TARGET, matrix, _key(embeddings)), inputs, known)


def _embedded(embeddings: Handle) -> Embedded:
    table = read_parquet(embeddings)
    return Embedded(table.column(0).combine_chunks(), to_matrix(table[EMBEDDING]))


def _key(vectors: Handle) -> str:
    """Whose vectors they are: the name of the column of ids."""
    return str(pq.read_schema(vectors.file).names[0])


@stage("controls", version=2)
def controls(
    config: Targets, arm: ArmName, targeted: Handle, train: Handle, items: Handle, seed: int
) -> Targeted:
    """Targets of a control arm for the users (items), and of the width, of `targeted`.

    Args:
        config: the targets' section.
        arm: what stands in for profiles; see `models.targets.control_arms`.
        targeted: the profiles' targets.
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
        seed: the training's, with which shuffled and noise are drawn anew.

    Raises:
        BadInput: if the data has nothing to make the control of.
    """
    table = read_parquet(targeted)
    key, vectors = table.column_names[0], to_matrix(table[TARGET])
    made = control_targets(
        arm,
        ControlInputs(
            vectors,
            key,
            table[key].to_pylist(),
            read_parquet(train),
            read_parquet(items),
            seed,
            config,
        ),
    )
    inputs = {"targets": targeted, "train": train, "items": items}
    known = {**config.identity(), "arm": arm, "seed": seed}
    return Targeted(
        targets=write_parquet(
            "targets", to_table(table[key].combine_chunks(), TARGET, made, key), inputs, known
        ),
        reduction=arm,
        width=made.shape[1],
    )
