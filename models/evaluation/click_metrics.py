"""Predicted likes: AUC and LogLoss, overall and as values per user.

Both are sums over held-out pairs, not means over users. For comparisons that treat users as a
sample, each user gets the value whose mean over users is the metric itself and whose spread is
that of the metric under another choice of users: the metric plus the user's share of it.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.arrow import Bools, Floats, Ints
from models.config import Metric
from models.errors import BadInput

_TINY = 1e-7


def likes(ratings: pa.ChunkedArray, like_from: float) -> Bools:
    """Tell likes from other ratings, none of them missing: bool (n,)."""
    return np.asarray(ratings) >= like_from


def require_likes(ratings: pa.ChunkedArray, like_from: float, split: str) -> None:
    """Refuse a part whose ratings are missing, all likes, or all not; see `require_both`."""
    if ratings.null_count:
        raise BadInput(
            f"evaluation.like_from: {ratings.null_count} of {len(ratings)} interactions of the "
            f"{split} part have no rating. Leave it empty, or supply ratings."
        )
    require_both(likes(ratings, like_from), split)


def require_both(labels: Bools, split: str) -> None:
    """Refuse pairs that are all liked, or all not, naming the setting to change."""
    if labels.all() or not labels.any():
        kind = "likes" if len(labels) and labels.all() else "dislikes"
        raise BadInput(
            f"evaluation.like_from: the {split} part holds {kind} only. Move the threshold into "
            "the range of the ratings."
        )


def auc(labels: Bools, scores: NDArray[np.floating]) -> float:
    """Probability that a liked pair scores above one that is not; a tie counts half."""
    above = _placements(labels, scores)
    return float(above[labels].mean())


def _placements(labels: Bools, scores: NDArray[np.floating]) -> Floats:
    """Per pair the share of the other kind that it is on the right side of: float64 (n,)."""
    from scipy.stats import rankdata  # half a second, which most commands need not wait

    ranks, n_liked = rankdata(scores), int(labels.sum())
    placements = np.empty(len(labels))
    for kind, n_others in ((True, len(labels) - n_liked), (False, n_liked)):
        own = labels == kind
        below = (ranks[own] - rankdata(scores[own])) / max(n_others, 1)
        placements[own] = below if kind else 1 - below
    return placements


def log_losses(labels: Bools, probabilities: NDArray[np.floating]) -> Floats:
    """Cross-entropy per pair in nats, probabilities kept 1e-7 away from 0 and 1: float64 (n,)."""
    clipped = np.clip(probabilities.astype(np.float64), _TINY, 1 - _TINY)
    return -np.log(np.where(labels, clipped, 1 - clipped))


def per_user(
    metric: Metric, users: Ints, labels: Bools, probabilities: NDArray[np.floating]
) -> Floats:
    """Values per user, float64 (n_users,), whose mean is the metric, auc or logloss.

    With U users, AUC's is AUC + U·(Σ over the user's likes of (V − AUC) / likes + the same over the
    others), V the placement values: the variance of clustered ROC data (Obuchowski 1997,
    "Nonparametric analysis of clustered ROC curve data", section 3). LogLoss's is that of a ratio:
    LogLoss + U·Σ over the user's pairs of (loss − LogLoss) / pairs. `users` are int64 (n,), codes
    from 0 without gaps, labels bool (n,) and probabilities float (n,).
    """
    n_users = int(users.max()) + 1
    if metric == "auc":
        placements = _placements(labels, probabilities)
        value = float(placements[labels].mean())
        n_liked = labels.sum()
        shares = (placements - value) / np.where(labels, n_liked, len(labels) - n_liked)
    else:
        losses = log_losses(labels, probabilities)
        value = float(losses.mean())
        shares = (losses - value) / len(losses)
    return value + n_users * np.bincount(users, shares, minlength=n_users).astype(np.float64)
