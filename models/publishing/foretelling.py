"""What texts foretell of users and items that a model has not learnt of.

The ridge regression of any values on unit text vectors (the learned prior of
`models.recommenders.ials`, equation 3) is a fixed combination of the known rows' values:

    y_new = mean(Y) + (t_new − t̄)(TᵀT + ρI)⁻¹Tᵀ Y = W·Y,

with T the centred vectors of the known rows. So one W serves vectors and scores of every model.
"""

from dataclasses import dataclass

import numpy as np

from models.arrow import Bools, Ints, Singles
from models.recommenders.closed_form import ridge_shares, unit_vectors
from models.recommenders.hyperparameters import hyperparameters

_MOST_KNOWN = 20_000
"""Known rows beyond these change the regression little."""


@dataclass(frozen=True)
class Foretold:
    """Rows that others' values foretell.

    Attributes:
        rows: int64 (m,), internal ids that the model has not learnt of; `known`, (n,): that it has.
        weights: float32 (m, n), W.
    """

    rows: Ints
    known: Ints
    weights: Singles


def foretold(embeddings: Singles, described: Bools, learnt: Ints, wanted: Ints) -> Foretold | None:
    """Learn W; None where no wanted row, or fewer than two learnt ones, have a text.

    `embeddings`, float32 (n_ids, width), and `described`, bool (n_ids,), are by internal id, of
    which the model has learnt of `learnt` and not of `wanted`.
    """
    rows, known = wanted[described[wanted]], learnt[described[learnt]]
    if not len(rows) or len(known) < 2:
        return None
    known = np.sort(np.random.default_rng(0).permutation(known)[:_MOST_KNOWN])
    unit, _ = unit_vectors("nightly", "texts", embeddings, described, len(embeddings))
    ridge = hyperparameters("iALS", {})["prior_reg"]
    weights = ridge_shares(unit, known, rows, ridge) + 1 / len(known)
    return Foretold(rows, known, weights.astype(np.float32))
