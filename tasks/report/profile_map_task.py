"""Stage *profile-map*: the embeddings of profiles on a plane, for the report."""

import numpy as np
import pyarrow as pa

from models.config import Side
from models.embeddings.text_batches import to_matrix
from models.report.profile_map import favourites, first_genres, method, project, sample
from models.schemas import EMBEDDING, ITEM, TEXT, USER
from tasks.execution.stage import stage
from tasks.report.outputs import Mapped
from tasks.storage.artifacts import Handle, read_parquet, write_parquet

_TEXT_LENGTH = 300
"""Characters of a profile that are kept: more than the page shows."""


@stage("profile-map", version=2)
def profile_map(
    side: Side, embeddings: Handle, profiles: Handle | None, train: Handle, items: Handle
) -> Mapped | None:
    """Put a side's embeddings on a plane, at most 5,000; None where too few, or all are equal.

    `profiles` is None for imported vectors; `train` decides a user's favourite genre.
    """
    table = read_parquet(embeddings)
    drawn = table.take(sample(table.num_rows))
    plane = project(to_matrix(drawn[EMBEDDING]))
    if plane is None:
        return None
    key = drawn.column_names[0]
    ids = drawn[key].to_pylist()
    catalogue = read_parquet(items)
    if side == "users":
        genres = favourites(read_parquet(train, [USER, ITEM]), catalogue)
    else:
        genres = first_genres(catalogue)
    texts = _texts(profiles, key) if profiles else {}
    points = pa.table(
        {
            "id": ids,
            "x": plane[:, 0].astype(np.float32),
            "y": plane[:, 1].astype(np.float32),
            "genre": pa.array([genres.get(token) for token in ids], pa.string()),
            "text": pa.array([texts.get(token) for token in ids], pa.string()),
        }
    )
    inputs = {"embeddings": embeddings, "train": train, "items": items}
    inputs |= {"profiles": profiles} if profiles else {}
    handle = write_parquet("map", points, inputs)
    return Mapped(side=side, points=handle, method=method(len(ids)), total=table.num_rows)


def _texts(profiles: Handle, key: str) -> dict[str, str | None]:
    table = read_parquet(profiles, [key, TEXT])
    texts = (text and text[:_TEXT_LENGTH] for text in table[TEXT].to_pylist())
    return dict(zip(table[key].to_pylist(), texts, strict=True))
