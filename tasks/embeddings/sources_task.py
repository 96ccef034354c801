"""Stage *sources*: the vectors of several sources of knowledge in one."""

from prefect.logging import get_run_logger

from models.arrow import distinct
from models.config import Side
from models.embeddings.sources import combined, metadata
from models.errors import BadInput
from models.schemas import EMBEDDING, KEYS, vectors
from tasks.embeddings.outputs import Embedded
from tasks.execution.stage import stage
from tasks.storage.artifacts import Handle, read_parquet, write_parquet


@stage("sources", version=3)
def sources(
    weights: dict[str, float],
    texts: dict[str, Embedded],
    items: Handle,
    train: Handle,
    users: Handle,
    side: Side,
) -> Embedded:
    """Combine the sources of one side in the order of their weights, which are above 0.

    `texts` has the vectors of the sources that are texts. `items` and `users` have the schemas of
    their names; all items get a row, or all users of `train`, schema `INTERACTIONS`.

    Raises:
        BadInput: if a source has nothing, or nothing that tells users (items) apart.
    """
    key = KEYS[side]
    log, catalogue, people = map(read_parquet, (train, items, users))
    parts = {}
    for name in weights:
        if name in texts:
            parts[name] = read_parquet(texts[name].embeddings)
            continue
        made = metadata(name, catalogue, log, key, people)
        if made is None:
            raise BadInput(
                f"targets.sources: {name} needs items with {name} and there are none. Set the "
                f"columns of dataset, or leave out {name}."
            )
        parts[name] = made
    subjects = distinct((log if side == "users" else catalogue)[key])
    table = combined(parts, weights, subjects, key)
    inputs = {"items": items, "train": train, "users": users}
    inputs |= {name: embedded.embeddings for name, embedded in texts.items()}
    width = table[EMBEDDING].type.list_size
    assert table.schema.equals(vectors(EMBEDDING, width, key))
    get_run_logger().info("%d %s described by %s", table.num_rows, side, ", ".join(weights))
    return Embedded(
        embeddings=write_parquet("embeddings", table, inputs, {"sources": weights}),
        model=", ".join(dict.fromkeys(embedded.model for embedded in texts.values())) or "none",
        width=width,
        missing=len(subjects) - table.num_rows,
    )
