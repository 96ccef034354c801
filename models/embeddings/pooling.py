"""Users described by what they chose: the mean of the vectors of their items' profiles."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from models.arrow import distinct, incidence
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, ITEM, USER

_USERS_AT_ONCE = 50_000


def pooled(train: pa.Table, embeddings: pa.Table, shuffle: int | None = None) -> Iterator[pa.Table]:
    """Average the vectors of each user's items: `vectors("embedding", d, USER)`, sorted batches.

    Items are centred first: what all items share tells no two users apart. Users none of whose
    items has a vector are left out, as users without a profile are. `train` has the schema
    `INTERACTIONS`, `embeddings` is `vectors("embedding", d, ITEM)`; `shuffle` is the seed of a
    permutation of these among the items, for the control arm shuffled-items. BadInput if no item of
    the training part has a vector.
    """
    users = distinct(train[USER])
    chosen = incidence(train, users, embeddings[ITEM].combine_chunks())
    counts = np.diff(chosen.indptr)
    if not counts.any():
        raise BadInput(
            "profiles.provider items: no item of the training part has a vector. Check that "
            "item_profiles or item_embeddings covers this data set."
        )
    vectors = to_matrix(embeddings[EMBEDDING]).astype(np.float64)
    if shuffle is not None:
        vectors = vectors[np.random.default_rng(shuffle).permutation(len(vectors))]
    vectors -= vectors.mean(axis=0)
    for start in range(0, len(users), _USERS_AT_ONCE):
        within = slice(start, start + _USERS_AT_ONCE)
        known = counts[within] > 0
        means = (chosen[within] @ vectors)[known] / counts[within][known, None]
        ids = users[start : start + _USERS_AT_ONCE].filter(pa.array(known))
        yield to_table(ids, EMBEDDING, means.astype(np.float32), USER)
