"""Stage *pooling*: users' vectors from those of the items that they chose."""

from prefect.logging import get_run_logger

from models.embeddings.pooling import pooled
from models.schemas import EMBEDDING, ITEM, USER, vectors
from tasks.embeddings.outputs import Embedded
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, read_parquet, write_batches


@stage("pooling", version=1)
def pooling(items: Embedded, train: Handle, shuffle: int | None = None) -> Embedded:
    """Describe every user of the training part by the mean vector of the user's items.

    For `shuffle`, a seed of the control arm shuffled-items, and errors see `pooled`.
    """
    interactions = read_parquet(train, [USER, ITEM])
    tables = pooled(interactions, read_parquet(items.embeddings), shuffle)
    made = write_batches(
        "embeddings",
        vectors(EMBEDDING, items.width, USER),
        tables,
        {"items": items.embeddings, "train": train},
        {"pooled": "mean", "shuffle": shuffle},
    )
    get_run_logger().info("%d users described by their items' profiles", made.rows)
    return items.model_copy(update={"embeddings": made, "texts_cached": 0, "texts_embedded": 0})
