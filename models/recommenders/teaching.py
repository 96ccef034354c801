"""Student and teacher of the alignment `teacher`: see `models.transfer.teacher`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from models.config import Side
from models.config.transfer import Teacher
from models.recommenders.recbole_adapter import Log, Universe
from models.recommenders.recommender import Recommender
from models.transfer.teacher import Lesson
from models.transfer.wrapper import Targets

_SWEEPS = 10
"""Of iALS, when validation no longer rises on MovieLens."""


def lesson(
    student: Recommender,
    settings: Teacher,
    log: Log,
    universe: Universe,
    embeddings: Mapping[Side, Targets],
) -> Lesson:
    """Train the teacher of `student`.

    Args:
        student: it has the teacher's seed and device, too.
        settings: of the teacher.
        log: what the student was built from.
        universe: likewise.
        embeddings: whole embeddings by side, from `Recommender.align`.

    Raises:
        BadInput: for a hyper-parameter of the teacher that is wrong.
    """
    device = str(student.device)
    given = settings.hyperparameters
    teacher = Recommender(settings.model, given, log, universe, student.seed, device)
    teacher.take_embeddings(settings.alpha, embeddings)
    for _ in range(0 if teacher.entry.loader is None else _SWEEPS):
        cast(Any, teacher.module).sweep()
    teacher.module.eval()
    return Lesson(partial(graded_scores, student), teacher.scores)


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
