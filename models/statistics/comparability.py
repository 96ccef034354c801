"""Equal terms: what two arms must share before their values may be held against each other."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.config import BASELINE, Job
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import entry
from models.schemas import ITEM, USER

BATCH_SIZE = "batch_size"
"""The one term that does not bind two different models."""


@dataclass(frozen=True)
class Terms:
    """What one training was allowed, and what it is judged by; the columns of `runs`."""

    dataset: str
    split_digest: str
    """Over the interactions in train, valid and test."""
    candidate_items: int
    """How many items a ranking is made of."""
    epochs_budget: int
    patience: int
    valid_metric: str
    batch_size: int | None
    """None for a model that is computed, not trained in batches."""
    search_trials: int = 0
    """Hyper-parameter settings tried on validation before this one was kept."""

    @classmethod
    def of(
        cls,
        job: Job,
        dataset: str,
        split_digest: str,
        candidate_items: int,
        search_trials: int = 0,
    ) -> Self:
        """The terms of a job of a pipeline."""
        computed = entry(job.model).loader is None
        settings = {} if computed else hyperparameters(job.model, job.hyperparameters)
        return cls(
            dataset=dataset,
            split_digest=split_digest,
            candidate_items=candidate_items,
            epochs_budget=job.budget.epochs,
            patience=job.budget.patience,
            valid_metric=job.budget.valid_metric,
            batch_size=settings.get("train_batch_size"),
            search_trials=search_trials,
        )


def split_digest(*parts: pa.Table) -> str:
    """16 hex digits over the user-item pairs of train, valid and test, whatever their order.

    Unlike an artifact's sha256, it does not change with the version of the library that wrote it.
    """
    digest = hashlib.sha256()
    for part in parts:
        pairs = part.select([USER, ITEM]).sort_by([(USER, "ascending"), (ITEM, "ascending")])
        for column in pairs.columns:
            for buffer in column.combine_chunks().buffers()[1:]:
                digest.update(buffer)
        digest.update(b"%d" % pairs.num_rows)
    return digest.hexdigest()[:16]


_WORDS = {
    "dataset": "data sets",
    "split_digest": "splits",
    "candidate_items": "candidate sets",
    "epochs_budget": "epoch budgets",
    "patience": "patience",
    "valid_metric": "early-stopping metrics",
    BATCH_SIZE: "batch sizes",
    "search_trials": "search trials",
}


@dataclass(frozen=True)
class Protocol:
    """How an arm was trained and scored, over its seeds."""

    seeds: tuple[int, ...]
    users: NDArray[np.str_]
    """str (n_users,), the users scored, in the order of their values."""
    terms: tuple[Terms, ...]
    """One per seed."""


def obstacle(
    arm: Protocol, other: Protocol, against: str = BASELINE, ignoring: Collection[str] = ()
) -> str | None:
    """Say why two arms cannot be compared; None if they can.

    Args:
        arm: one of them.
        other: what it is held against.
        against: the other's name in the sentence.
        ignoring: names of terms that need not be equal.
    """
    if arm.seeds != other.seeds:
        return _differ("seeds", against, other.seeds, arm.seeds)
    for term in fields(Terms):
        of_arm, of_other = (
            [getattr(terms, term.name) for terms in protocol.terms] for protocol in (arm, other)
        )
        if of_arm != of_other and term.name not in ignoring:
            return _differ(_WORDS[term.name], against, _distinct(of_other), _distinct(of_arm))
    if not np.array_equal(arm.users, other.users):
        only_one = len(np.setxor1d(arm.users, other.users))
        return f"users differ ({only_one} scored in one arm only)"
    if len(arm.users) < 2:
        return "fewer than 2 users were scored"
    return None


def _differ(what: str, against: str, others: Sequence[object], arms: Sequence[object]) -> str:
    verb = "differs" if what == "patience" else "differ"
    return f"{what} {verb} ({against} {_listed(others)}; arm {_listed(arms)})"


def _distinct(values: Sequence[object]) -> list[object]:
    return sorted(dict.fromkeys(values), key=lambda value: (isinstance(value, str), value or 0))


def _listed(values: Sequence[object]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
