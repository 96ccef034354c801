"""The transfer core's arithmetic: losses, masks, scale, freezing, and taps that are wrong."""

import math

import pytest
import torch
from worlds import USERS, WIDTH, recommender, targets, train, wrap

from models.config import Freeze, Tap, Transfer
from models.errors import BadInput
from models.training import phases, second_half
from models.transfer.losses import LossManager, rmse
from models.transfer.weights import WeightsManager


def first_batch(built):
    return next(iter(built.batches()))


def test_rmse_and_its_gradient_by_hand():
    hidden = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    loss = rmse(hidden, target)
    assert loss.item() == pytest.approx(math.sqrt((4 + 9) / 4))
    loss.backward()
    # d/dh sqrt(mean(e²)) = e / (n · rmse)
    expected = torch.tensor([[0.0, 2.0], [3.0, 0.0]]) / (4 * math.sqrt(13 / 4))
    torch.testing.assert_close(hidden.grad, expected)


def test_rmse_has_a_finite_gradient_at_its_target():
    hidden = torch.ones(3, 2, requires_grad=True)
    rmse(hidden, torch.ones(3, 2)).backward()
    assert torch.equal(hidden.grad, torch.zeros(3, 2))


def test_joint_loss_by_hand():
    losses = LossManager("rmse", alpha=0.25).join(
        torch.tensor(2.0), torch.tensor([[3.0]]), torch.tensor([[1.0]]), pull=lambda _: 1.0
    )
    assert losses.total.item() == pytest.approx(0.75 * 2 + 0.25 * 2)
    assert losses.transfer.item() == pytest.approx(2.0)


def test_users_without_profile_are_masked_not_zeroed():
    built = recommender("BPR")
    users, vectors = targets()
    known = [i for i, user in enumerate(users) if int(user[1:]) < 20]
    some = ([users[i] for i in known], vectors[known])
    wrapper = wrap(built, Transfer(alpha=1.0), rows=some)
    wrapper.step_loss(first_batch(built), transferring=True).total.backward()
    moved = built.module.user_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert {built.user_tokens[i] for i in moved.tolist()} <= set(some[0])
    assert len(moved) > 5


def test_a_batch_without_any_profile_trains_on_the_model_loss():
    built = recommender("BPR")
    nobody = (["stranger"], targets()[1][:1])
    losses = wrap(built, Transfer(), rows=nobody).step_loss(first_batch(built), transferring=True)
    assert losses.transfer is None
    assert losses.total is losses.model


def test_balanced_alpha_is_the_share_of_the_pull_on_the_layer():
    """Whatever the model's loss is multiplied by, the transfer's share of the gradient is alpha."""
    for size in (0.01, 1.0, 1000.0):
        built = recommender("BPR")
        own_loss = built.loss
        built.loss = lambda batch, own=own_loss, size=size: size * own(batch)
        tap = Tap(kind="parameter", name="user_embedding.weight")
        wrapper = wrap(built, Transfer(alpha=0.25, balance="gradient"), tap=tap)
        losses = wrapper.step_loss(first_batch(built), transferring=True)
        of_model, of_all = (
            torch.autograd.grad(loss, built.module.user_embedding.weight, retain_graph=True)[0]
            for loss in (losses.model, losses.total)
        )
        of_transfer = of_all - 0.75 * of_model
        assert (of_transfer.norm() / of_model.norm()).item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(("scale", "expected"), [("none", 1.0), (0.25, 0.25), ("layer", None)])
def test_targets_are_compared_on_the_asked_scale(scale, expected):
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(scale=scale))
    seen = {}
    wrapper.losses.align = lambda hidden, target: seen.update(h=hidden, t=target) or hidden.sum()
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True)
    unscaled = wrapper.targets.vectors[built.users_of(batch)]
    factor = seen["h"].std() if expected is None else expected
    torch.testing.assert_close(seen["t"], unscaled * factor)


def test_schedules_cover_the_budget_once():
    for epochs in (1, 2, 7, 40):
        for transfer in (None, Transfer(), Transfer(schedule="joint")):
            covered = [number for phase in phases(transfer, epochs) for number in phase.epochs]
            assert covered == list(range(epochs))
    assert [(p.name, len(p.epochs)) for p in phases(Transfer(), 7)] == [
        ("transfer", 3),
        ("finetune", 4),
    ]


def test_patience_counts_from_the_second_half_in_every_arm():
    """With a learning rate of nothing no epoch improves: both arms stop at the same epoch."""
    for transfer in (None, Transfer(), Transfer(schedule="joint")):
        built = recommender("BPR", learning_rate=0.0)
        fitted = train(built, wrap(built, transfer), epochs=20, patience=3)
        assert len(fitted.epochs) == second_half(20) + 3
        assert fitted.best_epoch == 0


def test_the_best_epoch_is_kept_over_both_phases():
    built = recommender("BPR", learning_rate=0.05)
    fitted = train(built, wrap(built, Transfer(alpha=0.3)), epochs=10)
    scores = [epoch.valid_score for epoch in fitted.epochs]
    assert fitted.best_epoch == scores.index(max(scores))


def test_same_seed_same_course_other_seed_another():
    courses = []
    for seed in (1, 1, 2):
        built = recommender("SimpleX", seed=seed)
        fitted = train(built, wrap(built, Transfer()), epochs=3, seed=seed)
        courses.append([(e.model_loss, e.transfer_loss, e.valid_score) for e in fitted.epochs])
    assert courses[0] == courses[1]
    assert courses[0] != courses[2]


def test_a_loss_that_is_no_longer_finite_stops():
    built = recommender("BPR", learning_rate=1e30)
    with pytest.raises(BadInput, match=r"no longer finite in epoch \d+ .*lower learning_rate"):
        train(built, wrap(built, Transfer()), epochs=5)


def test_freeze_by_name_layer_and_glob():
    built = recommender("NeuMF")
    manager = WeightsManager(built.module)
    assert manager.matching(["predict_layer"]) == {"predict_layer.weight", "predict_layer.bias"}
    assert len(manager.matching(["*_mlp_embedding.*"])) == 2
    manager.freeze_only(["predict_layer.bias"])
    frozen = [name for name, p in built.module.named_parameters() if not p.requires_grad]
    assert frozen == ["predict_layer.bias"]
    manager.thaw()
    assert all(parameter.requires_grad for parameter in built.module.parameters())
    with pytest.raises(BadInput, match=r"freeze: nonsense matches no parameter of NeuMF; it has"):
        manager.matching(["nonsense"])


def test_freezing_holds_only_in_its_phase():
    built = recommender("BPR")
    start = built.module.item_embedding.weight.detach().clone()
    transfer = Transfer(freeze=Freeze(transfer=("item_embedding",)))
    snapshots = []
    wrapper = wrap(built, transfer)
    original = wrapper.weights.freeze_only  # called at the start of each phase and at the end
    wrapper.weights.freeze_only = lambda patterns: (
        snapshots.append(built.module.item_embedding.weight.detach().clone()) or original(patterns)
    )
    train(built, wrapper, epochs=4)
    before, between, after = snapshots
    assert torch.equal(before, start)
    assert torch.equal(between, start)
    assert not torch.equal(after, start)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (Tap(name="user_tower"), "BPR has no module user_tower to tap; it has user_embedding"),
        (Tap(kind="method", name="aggregate"), "BPR has no method aggregate.*get_user_embedding"),
        (Tap(kind="parameter", name="w"), r"BPR has no parameter w .*user_embedding\.weight"),
        (Tap(name="user_embedding", start=10, stop=80), "slice 10:80 does not fit.*64 wide"),
        (Tap(name="user_embedding", stop="half"), "32 wide, the targets are 64 wide"),
    ],
)
def test_taps_that_cannot_be_are_explained(tap, message):
    built = recommender("BPR")
    with pytest.raises(BadInput, match=message):
        wrap(built, Transfer(), tap=tap).step_loss(first_batch(built), transferring=True)


def test_a_tap_that_does_not_fire_is_explained():
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(), tap=Tap(kind="method", name="predict"))
    with pytest.raises(BadInput, match="method predict did not fire"):
        wrapper.step_loss(first_batch(built), transferring=True)


def test_parameter_rows_can_be_tapped():
    built = recommender("BPR")
    tap = Tap(kind="parameter", name="user_embedding.weight")
    wrapper = wrap(built, Transfer(alpha=1.0), tap=tap)
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True).total.backward()
    moved = built.module.user_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert moved.tolist() == built.users_of(batch).unique().tolist()
    assert len(USERS) > len(moved) / 2
    assert built.module.user_embedding.embedding_dim == WIDTH
