"""Several sources of knowledge in one vector: texts, genres and years, each centred and scaled.

Each source's block has rows of root mean square length 1, times its weight, so that neither a
source's width nor its units decide how much it says.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow import Floats, positions, words
from models.embeddings.pooling import pooled
from models.embeddings.text_batches import to_matrix, to_table
from models.errors import BadInput
from models.schemas import EMBEDDING, FEATURES, GENRES, ITEM, USER, YEAR

_KNOTS = 6
_NOBODY = pa.table({})


def _listed(rows: pa.Table, column: str) -> Floats:
    """1 where a row's list has a word: float64 (n_rows, n_words); no columns without `column`."""
    return np.asarray(words(rows, column)[0].todense())


def _years(items: pa.Table) -> Floats:
    """Years between knots at their quantiles: float64 (n_items, at most 6), rows of sum 1.

    A year shares itself between the knots beside it, so that what is linear in the columns may
    bend at each knot. A row is zero where the year is unknown.
    """
    known = np.asarray(pc.is_valid(items[YEAR]))
    years = np.asarray(pc.fill_null(items[YEAR], 0), dtype=np.float64)
    if not known.any():
        return np.zeros((items.num_rows, 0))
    knots = np.unique(np.quantile(years[known], np.linspace(0, 1, _KNOTS)))
    shares = np.stack([np.interp(years, knots, one) for one in np.eye(len(knots))], axis=1)
    return np.where(known[:, None], shares, 0.0)


METADATA: dict[str, Callable[[pa.Table], Floats]] = {
    "genres": partial(_listed, column=GENRES),
    "years": _years,
    "features": partial(_listed, column=FEATURES),
}
"""Sources that are read from the items (features: of users, too) themselves."""


def metadata(
    source: str, items: pa.Table, train: pa.Table, key: str, users: pa.Table = _NOBODY
) -> pa.Table | None:
    """Make `vectors("embedding", width, key)` of a source of `METADATA`; None if nobody has any.

    A user's vector is the mean of those of the training items; of features, the user's own if there
    are any. `items`, `train` and `users` have the schemas `ITEMS`, `INTERACTIONS` and `USERS`.
    """
    own = key == USER and source == "features" and FEATURES in users.column_names
    rows, of = (users, USER) if own else (items, ITEM)
    matrix = METADATA[source](rows)
    known = matrix.any(axis=1)
    if not known.any():
        return None
    ids = rows[of].combine_chunks().filter(pa.array(known))
    table = to_table(ids, EMBEDDING, matrix[known].astype(np.float32), of)
    return table if key == of else pa.concat_tables(pooled(train, table))


def all_metadata(items: pa.Table, train: pa.Table, subjects: pa.Array, key: str) -> Floats:
    """Combine genres and years, of `subjects`: float64 (n, width); BadInput if there is neither."""
    made = {source: metadata(source, items, train, key) for source in ("genres", "years")}
    parts = {source: table for source, table in made.items() if table is not None}
    if not parts:
        raise BadInput(
            "training.arms: genres-years needs items with genres or years and there are none. Set "
            "dataset.columns.genres or year, or remove the arm."
        )
    table = combined(parts, dict.fromkeys(parts, 1.0), subjects, key)
    rows = np.asarray(pc.index_in(table[key].combine_chunks(), subjects))
    placed = np.zeros((len(subjects), table[EMBEDDING].type.list_size))
    placed[rows] = to_matrix(table[EMBEDDING])
    return placed


def combined(
    parts: Mapping[str, pa.Table], weights: Mapping[str, float], subjects: pa.Array, key: str
) -> pa.Table:
    """Set the vectors of several sources side by side: `vectors("embedding", sum of widths, key)`.

    `parts` has each source's `vectors("embedding", width, key)`. Of `subjects`, one without any
    source has no row; the block of a source that a subject lacks is zero, its mean.

    Raises:
        BadInput: if a source's vectors are all equal.
    """
    blocks, present = [], np.zeros(len(subjects), bool)
    for source, table in parts.items():
        rows = positions(subjects, table[key].combine_chunks())
        known = rows >= 0
        vectors = to_matrix(table[EMBEDDING])[rows[known]].astype(np.float64)
        vectors -= vectors.mean(axis=0) if len(vectors) else 0
        length = np.sqrt((vectors**2).sum(axis=1).mean()) if len(vectors) else 0
        if length < 1e-6:
            raise BadInput(
                f"targets.sources: the vectors of {source} are all equal, so they tell nothing "
                f"apart. Leave out {source}."
            )
        block = np.zeros((len(subjects), vectors.shape[1]), np.float32)
        block[known] = vectors * (weights[source] / length)
        blocks.append(block)
        present |= known
    matrix = np.concatenate(blocks, axis=1)[present]
    return to_table(subjects.filter(pa.array(present)), EMBEDDING, matrix, key)
