"""Stage *targets*: embeddings reduced to the width of a tapped layer."""

from models.config import Targets
from models.embeddings import to_matrix, to_table
from models.schemas import EMBEDDING, TARGET, USER
from models.targets import reduce
from tasks.caching import stage
from tasks.handoffs import Targeted
from tasks.storage import Handle, read_parquet, write_parquet


@stage("targets", version=2)
def targets(config: Targets, embeddings: Handle, width: int) -> Targeted:
    """Reduce the embeddings of every user to `width`; see `models.targets.reduce` for errors.

    `width` decides; whether it is `config.width` or a layer's is the caller's business.
    """
    table = read_parquet(embeddings)
    matrix = reduce(to_matrix(table[EMBEDDING]), width, config)
    reduced = to_table(table[USER].combine_chunks(), TARGET, matrix)
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
