"""Student and teacher of the alignment `teacher`: see `models.transfer.teacher`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from models.config import Side, Transfer
from models.recommenders.blend import standardised
from models.recommenders.ials import SWEEPS
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.transfer.teacher import Taught
from models.transfer.wrapper import Targets

_REMEMBERED = 1 << 27
"""At most so many of a teacher's scores are kept: half a gigabyte."""


def lesson(
    student: Recommender,
    transfer: Transfer,
    data: tuple[Log, Universe],
    embeddings: Mapping[Side, Targets],
) -> Taught:
    """Train the teacher of `student` on `data`, with embeddings from `Recommender.align`."""
    settings, seed = transfer.teacher, student.seed
    given = settings.hyperparameters
    teacher = Recommender(settings.model, given, *data, seed, str(student.device))
    teacher.take_embeddings(settings.alpha, embeddings)
    for _ in range(0 if teacher.entry.loader is None else SWEEPS):
        cast(Any, teacher.module).sweep()
    teacher.module.eval()
    users, scores = partial(student.ids, "users"), partial(graded_scores, student)
    return Taught(transfer, seed, student.module, users, scores, Remembered(teacher))


class Remembered:
    """A trained model's scores, computed once for each user while all of them fit into memory."""

    def __init__(self, model: Recommender) -> None:
        self._model = model
        fits = model.n_users * model.n_items <= _REMEMBERED
        self._scores = torch.empty(model.n_users if fits else 0, model.n_items, device=model.device)
        self._known = torch.zeros(len(self._scores), dtype=torch.bool, device=model.device)

    def __call__(self, users: Tensor) -> Tensor:
        """Of distinct users, int64 (n,): as `Recommender.scores`, each row standardised."""
        if not len(self._scores):
            return standardised(self._model.scores(users))
        new = users[~self._known[users]]
        if len(new):
            self._scores[new] = standardised(self._model.scores(new))
            self._known[new] = True
        return self._scores[users]


def graded_scores(recommender: Recommender, users: Tensor) -> Tensor:
    """As `Recommender.scores`, part of the autograd graph: float (n, n_items).

    What the module keeps between predictions, and random numbers, stay as they are.

    Raises:
        NotImplementedError: if the model has no full sort.
    """
    recommender.forget()
    with torch.random.fork_rng([recommender.device] if recommender.device.type == "cuda" else []):
        module = cast(Any, recommender.module)
        scores: Tensor = module.full_sort_predict(recommender.interaction(users))
    recommender.forget()
    return scores.view(len(users), recommender.n_items)
