"""Student and teacher of the alignment `teacher`: see `models.transfer.teacher`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from models.config import Side, Transfer
from models.recommenders.ials import SWEEPS
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.transfer.teacher import Taught
from models.transfer.wrapper import Targets


def lesson(
    student: Recommender,
    transfer: Transfer,
    data: tuple[Log, Universe],
    embeddings: Mapping[Side, Targets],
) -> Taught:
    """Train the teacher of `student` on `data`, with embeddings from `Recommender.align`.

    Raises:
        BadInput: for a hyper-parameter of the teacher that is wrong.
    """
    settings, seed = transfer.teacher, student.seed
    given = settings.hyperparameters
    teacher = Recommender(settings.model, given, *data, seed, str(student.device))
    teacher.take_embeddings(settings.alpha, embeddings)
    for _ in range(0 if teacher.entry.loader is None else SWEEPS):
        cast(Any, teacher.module).sweep()
    teacher.module.eval()
    users, scores = partial(student.ids, "users"), partial(graded_scores, student)
    return Taught(transfer, seed, student.module, users, scores, teacher.scores)


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
