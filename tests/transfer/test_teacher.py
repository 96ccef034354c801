"""The alignment `teacher`: what is taught, who can learn, and what the teacher knows."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from models.config import Pipeline, Transfer
from models.errors import BadInput
from models.recommenders import teaching
from models.recommenders.blend import standardised
from models.recommenders.recommender import Recommender
from models.recommenders.registry import MODELS
from models.transfer.losses import AlignmentLoss
from tasks.training.tap_points import tap_points
from tests.support.toy_recommender import (
    SMALL_MODELS,
    TRAINED,
    TYPICAL,
    recommender,
    targets,
    train,
    weights,
    wrap,
)

USERS = torch.arange(1, 13)
NO_FULL_SORT = {"ConvNCF", "NNCF"}
STUDENTS = [
    name if name in TYPICAL | {"SimpleX", "RecVAE"} else pytest.param(name, marks=pytest.mark.slow)
    for name in TRAINED
    if MODELS[name].family != "context-aware" and name not in NO_FULL_SORT
]


def taught(strength: float = 0.8, **teacher) -> Transfer:
    """The transfer at a strength, from a teacher with these settings."""
    return Transfer.model_validate(
        {"alignment": "teacher", "schedule": "joint", "alpha": strength, "teacher": teacher}
    )


def teachers_scores(rows=None, **teacher) -> torch.Tensor:
    built = recommender("BPR")
    return wrap(built, taught(**teacher), rows=rows).sides[0].teacher(USERS)


def test_the_loss_by_hand():
    scores, taught_by = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    loss = AlignmentLoss(taught(), 1, 1, seed=0)
    logarithm = np.log(np.exp([1, 2, 4]).sum())
    assert loss(scores, taught_by).item() == pytest.approx(-(0.5 * 1 + 0.5 * 2) + logarithm)
    with torch.no_grad():
        loss.head.weight.fill_(np.log(3.0))  # the gain
    logarithm = np.log(np.exp([3, 6, 12]).sum())
    assert loss(scores, taught_by).item() == pytest.approx(-(0.5 * 3 + 0.5 * 6) + logarithm)


@pytest.mark.parametrize("model", STUDENTS)
def test_a_student_comes_closer_to_its_teacher(model):
    """The same loss, watched without weight and with; without weight it is the baseline."""

    def last(alpha: float):
        built = recommender(model, learning_rate=0.003)
        return built, train(built, wrap(built, taught(alpha)), epochs=6).epochs[-1].transfer_loss

    baseline = recommender(model, learning_rate=0.003)
    train(baseline, wrap(baseline, None), epochs=6)
    silent, far = last(0.0)
    for name, value in weights(baseline).items():
        np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)
    assert last(0.9)[1] < far


@pytest.mark.parametrize("model", ["EASE", "iALS"])
def test_the_teacher_is_its_model_with_the_knowledge(model):
    free, knowing = teachers_scores(model=model, alpha=0.0), teachers_scores(model=model, alpha=0.5)
    assert not torch.allclose(free, knowing)
    ids, vectors = targets("items")
    shuffled = teachers_scores((ids, vectors[::-1].copy()), model=model, alpha=0.5)
    assert not torch.allclose(shuffled, knowing)
    nothing = teachers_scores((ids, np.zeros_like(vectors)), model=model, alpha=0.5)
    torch.testing.assert_close(nothing, free)
    if model == "EASE":
        plain = recommender("EASE")
        torch.testing.assert_close(standardised(plain.scores(USERS)), free)
        other = teachers_scores(model=model, alpha=0.0, hyperparameters={"reg_weight": 5.0})
        assert not torch.allclose(other, free)


def points(model: str):
    given = {model: {"hyperparameters": SMALL_MODELS.get(model, {})}}
    transfer = {"alignment": "teacher", "side": "items"}
    return tap_points(
        Pipeline.model_validate({"experiment": "toy", "models": given, "transfer": transfer})
    )


@pytest.mark.parametrize("model", ["MultiVAE", "NeuMF"])
def test_students_need_no_tap(model):
    (point,) = points(model)[model].values()
    assert (point.tap, point.width) == (None, None)


@pytest.mark.parametrize("model", [*sorted(NO_FULL_SORT), "DeepFM"])
def test_a_model_that_is_not_scored_on_all_items_is_refused(model):
    with pytest.raises(BadInput, match=rf"models\.{model}: alignment teacher draws .* {model} do"):
        points(model)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_scores_that_are_remembered_are_the_teachers(monkeypatch, limit):
    monkeypatch.setattr(teaching, "_REMEMBERED", limit)
    model = recommender("EASE")
    asked = Mock(side_effect=model.scores)
    monkeypatch.setattr(model, "scores", asked)
    remembered = teaching.Remembered(model)
    for users in (torch.tensor([3, 1]), torch.tensor([1, 2, 3])):
        scores = Recommender.scores(model, users)
        torch.testing.assert_close(remembered(users), standardised(scores))
    told = [call.args[0].tolist() for call in asked.call_args_list]
    assert told == ([[3, 1], [2]] if limit else [[3, 1], [1, 2, 3]])
