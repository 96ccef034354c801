"""Stage *targets*: embeddings reduced to the width of a tapped layer."""

from models.config import Control, Targets
from models.controls import genre_histogram, history_svd, noise, shuffled
from models.embeddings import to_matrix, to_table
from models.schemas import EMBEDDING, TARGET
from models.targets import reduce
from tasks.caching import stage
from tasks.handoffs import Targeted
from tasks.storage import Handle, read_parquet, write_parquet


@stage("targets", version=3)
def targets(config: Targets, embeddings: Handle, width: int | None) -> Targeted:
    """Reduce the embeddings of every user (item) to `width`; for errors see `reduce`.

    `width` decides; whether it is `config.width` or a layer's is the caller's business. None
    keeps all columns, which needs the reduction none.
    """
    table = read_parquet(embeddings)
    matrix = reduce(to_matrix(table[EMBEDDING]), width, config)
    key = table.column_names[0]
    reduced = to_table(table[key].combine_chunks(), TARGET, matrix, key)
    return Targeted(
        targets=write_parquet(
            "targets",
            reduced,
            {"embeddings": embeddings},
            {**config.identity(), "width": matrix.shape[1]},
        ),
        reduction=config.reduction or "umap",
        width=matrix.shape[1],
    )


@stage("controls", version=2)
def controls(
    config: Targets, arm: Control, targeted: Handle, train: Handle, items: Handle, seed: int
) -> Targeted:
    """Targets of a control arm for the users (items), and of the width, of `targeted`.

    Args:
        config: the targets' section.
        arm: what stands in for profiles; see `models.controls`.
        targeted: the profiles' targets.
        train: schema `INTERACTIONS`.
        items: schema `ITEMS`.
        seed: the training's, with which shuffled and noise are drawn anew.

    Raises:
        BadInput: if the data has nothing to make the control of.
    """
    table = read_parquet(targeted)
    key = table.column_names[0]
    subjects, vectors = table[key].to_pylist(), to_matrix(table[TARGET])
    width = vectors.shape[1]
    if arm == "shuffled":
        made = shuffled(vectors, seed)
    elif arm == "noise":
        made = noise(vectors, seed)
    elif arm == "history-svd":
        made = history_svd(read_parquet(train), key, subjects, width, config)
    else:
        made = genre_histogram(
            read_parquet(train), read_parquet(items), key, subjects, width, config
        )
    inputs = {"targets": targeted, "train": train, "items": items}
    known = {**config.identity(), "arm": arm, "seed": seed}
    return Targeted(
        targets=write_parquet(
            "targets", to_table(table[key].combine_chunks(), TARGET, made, key), inputs, known
        ),
        reduction=arm,
        width=width,
    )
