"""The terms that two arms must share to be comparable."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.config import BASELINE, Job
from models.evaluation.user_scores import UserValues
from models.recommenders.hyperparameters import hyperparameters
from models.recommenders.registry import ELSEWHERE, judged
from models.schemas import ITEM, USER


@dataclass(frozen=True)
class Terms:
    """What one training was allowed, and how it is scored; the columns of `runs`."""

    dataset: str
    split_digest: str
    """Over the interactions in train, valid and test."""
    candidate_items: int
    """How many items are ranked."""
    epochs_budget: int | None
    """This and what follows: None for a model trained elsewhere, where nothing is known of it."""
    patience: int | None
    valid_metric: str | None
    batch_size: int | None
    """None for a model that is computed. No term of a comparison: arms may differ in it, as in
    every hyper-parameter that is searched."""
    search_trials: int | None = 0
    """Hyper-parameter settings tried on validation in the experiment's whole history."""

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
        row = judged(job.model)
        if row is ELSEWHERE:
            return cls(dataset, split_digest, candidate_items, *[None] * 5)
        computed = row.loader is None
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


@dataclass(frozen=True)
class Run:
    """One trained model: its name, its terms, and its values on test."""

    model: str
    arm: str
    seed: int
    terms: Terms
    values: UserValues
    run_id: str
    """Equal for a run that several points of an experiment share."""
    alpha: float | None = None
    """The weight of the transfer loss; 0 where validation chose no transfer."""

    @property
    def replicate(self) -> tuple[str, int]:
        """The pair of split and seed."""
        return self.terms.split_digest, self.seed


def split_digest(*parts: pa.Table) -> str:
    """16 hex digits over the user-item pairs of train, valid and test, in any order.

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


_NOUNS = {
    "dataset": "data sets",
    "split_digest": "splits",
    "candidate_items": "candidate sets",
    "epochs_budget": "epoch budgets",
    "patience": "patience",
    "valid_metric": "early-stopping metrics",
    "search_trials": "search trials",
}


def obstacle(arm: Sequence[Run], other: Sequence[Run], against: str = BASELINE) -> str | None:
    """Say why two arms, each with its runs by split and seed, cannot be compared; None if they can.

    `against` is the other's name in the sentence.
    """
    for runs in (arm, other):
        first = {run.terms.split_digest: run.values.users for run in reversed(runs)}
        if any(not np.array_equal(run.values.users, first[run.replicate[0]]) for run in runs):
            return "users differ between seeds"
    for term in ("dataset", "split_digest"):
        own, others = ({getattr(run.terms, term) for run in runs} for runs in (arm, other))
        if own != others:
            return _differ(_NOUNS[term], against, _distinct(others), _distinct(own))
    if [run.replicate for run in arm] != [run.replicate for run in other]:
        return _differ("seeds", against, *([run.seed for run in runs] for runs in (other, arm)))
    for term, noun in _NOUNS.items():
        each, each_other = ([getattr(run.terms, term) for run in runs] for runs in (arm, other))
        if each != each_other and None not in (*each, *each_other):
            return _differ(noun, against, _distinct(each_other), _distinct(each))
    users = {run.replicate[0]: run.values.users for run in arm}
    for run in other:
        scored, scored_here = run.values.users, users[run.replicate[0]]
        same = np.array_equal(scored, scored_here)
        only_one = 0 if same else len(np.setxor1d(scored, scored_here))
        if only_one:
            return f"users differ ({only_one} scored in one arm only)"
    return "fewer than 2 users were scored" if len(common_users(arm)) < 2 else None


def common_users(arm: Sequence[Run]) -> NDArray[np.str_]:
    """The users that were scored in every split: string (n,), sorted."""
    different = {run.terms.split_digest: run.values.users for run in arm}
    first, *others = different.values()
    return reduce(np.intersect1d, others, first)


def _differ(noun: str, against: str, others: Sequence[object], own: Sequence[object]) -> str:
    verb = "differs" if noun == "patience" else "differ"
    return f"{noun} {verb} ({against} {_listed(others)}; arm {_listed(own)})"


def _distinct(values: Iterable[object]) -> list[object]:
    return sorted(dict.fromkeys(values), key=lambda value: (isinstance(value, str), value or 0))


def _listed(values: Sequence[object]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values)
