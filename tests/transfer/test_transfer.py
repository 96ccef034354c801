"""The transfer core's arithmetic: losses, masks, scale, freezing, and taps that are wrong."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from models.config import ALIGNMENTS, Freeze, Tap, Transfer
from models.errors import BadInput
from models.recommenders.tap_probe import probe
from models.training.training_loop import phases, second_half
from models.transfer.losses import AlignmentLoss
from models.transfer.weights import WeightsManager
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_recommender import USERS, WIDTH, recommender, targets, train, weights, wrap


def first_batch(built):
    return next(iter(built.batches()))


def aligned(alignment, hidden, target, **settings):
    made = AlignmentLoss(
        Transfer(alignment=alignment, **settings), hidden.shape[1], target.shape[1], seed=0
    )
    return made(hidden, target)


def test_rmse_and_its_gradient_by_hand():
    hidden = torch.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    loss = aligned("rmse", hidden, target)
    assert loss.item() == pytest.approx(math.sqrt((4 + 9) / 4))
    loss.backward()
    # d/dh sqrt(mean(e²)) = e / (n · rmse)
    expected = torch.tensor([[0.0, 2.0], [3.0, 0.0]]) / (4 * math.sqrt(13 / 4))
    torch.testing.assert_close(hidden.grad, expected)


def test_rmse_has_a_finite_gradient_at_its_target():
    hidden = torch.ones(3, 2, requires_grad=True)
    aligned("rmse", hidden, torch.ones(3, 2)).backward()
    assert torch.equal(hidden.grad, torch.zeros(3, 2))


def test_mse_cosine_and_relational_by_hand():
    hidden = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert aligned("mse", hidden, target).item() == pytest.approx((1 + 0 + 1 + 9) / 4)
    assert aligned("cosine", hidden, target).item() == pytest.approx(1 - (1 + 0) / 2)
    # The layer's rows are orthogonal, the targets' equal: each of both pairs is 1 off.
    assert aligned("relational", hidden, target).item() == pytest.approx(1.0)
    assert aligned("relational", hidden[:1], target[:1]).item() == 0.0


def test_contrastive_is_the_cross_entropy_of_ones_own_profile():
    torch.manual_seed(0)
    hidden, target = torch.randn(5, 4), torch.randn(5, 6)
    made = AlignmentLoss(Transfer(alignment="contrastive", temperature=0.5), 4, 6, seed=0)
    layer = hidden / hidden.norm(dim=1, keepdim=True)
    profile = made.head(target)
    profile = profile / profile.norm(dim=1, keepdim=True)
    odds = torch.exp(layer @ profile.T / 0.5)
    expected = -torch.log(odds.diagonal() / odds.sum(dim=1)).mean()
    torch.testing.assert_close(made(hidden, target), expected)


@pytest.mark.parametrize("alignment", ["linear", "generative", "contrastive"])
def test_heads_learn_to_bridge_widths(alignment):
    """A head trained on rows whose targets are a rotation of them brings the loss down."""
    torch.manual_seed(0)
    hidden = torch.randn(64, 8)
    target = hidden @ torch.randn(8, 12)
    made = AlignmentLoss(Transfer(alignment=alignment, mask=0.0), 8, 12, seed=0)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    course = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = made(hidden, target)
        loss.backward()
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < 0.5 * course[0]


def test_generative_masks_from_its_own_generator():
    hidden, target = torch.ones(4, 8), torch.ones(4, 8)
    made = AlignmentLoss(Transfer(alignment="generative", mask=0.5), 8, 8, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = made(hidden, target), made(hidden, target)
    assert torch.equal(torch.rand(1), expected)
    assert first.item() != second.item()


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_every_alignment_trains_and_alpha_zero_is_the_baseline(alignment):
    baseline, silent, loud = (recommender("LightGCN") for _ in range(3))
    train(baseline, wrap(baseline, None), epochs=2)
    if alignment != "init":
        off = Transfer(alpha=0, alignment=alignment, schedule="joint")
        fitted = train(silent, wrap(silent, off), epochs=2)
        assert fitted.epochs[-1].transfer_loss > 0
        for name, value in weights(baseline).items():
            np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)
    tap = Tap(name="user_embedding") if alignment == "init" else None
    wrapper = wrap(loud, Transfer(alpha=0.5, alignment=alignment, schedule="joint"), tap=tap)
    train(loud, wrapper, epochs=2)
    changed = [
        name for name, value in weights(baseline).items() if (value != weights(loud)[name]).any()
    ]
    assert "user_embedding.weight" in changed


def test_init_starts_the_table_from_the_targets():
    built = recommender("BPR")
    before = built.module.user_embedding.weight.detach().clone()
    wrapper = wrap(built, Transfer(alignment="init", scale=0.5))
    after = built.module.user_embedding.weight.detach()
    known = wrapper.sides[0].targets.known
    torch.testing.assert_close(after[known], 0.5 * wrapper.sides[0].targets.vectors[known])
    torch.testing.assert_close(after[~known], before[~known])
    fitted = train(built, wrapper, epochs=2)
    assert [epoch.transfer_loss for epoch in fitted.epochs] == [None, None]


def test_init_needs_a_table():
    with pytest.raises(BadInput, match=r"init starts a table .* method get_UI_aggregation of Simp"):
        wrap(recommender("SimpleX"), Transfer(alignment="init"))
    # FISM's users are means of items' rows: the table that is tapped is not theirs.
    with pytest.raises(BadInput, match=r"init starts a table .* module item_src_embedding of FISM"):
        wrap(recommender("FISM"), Transfer(alignment="init"))


def test_a_configuration_loads_without_torch():
    code = "import sys, models.config; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0
    )


def test_both_sides_at_one_method():
    """LightGCN's one `forward` yields users and items: both are recorded, neither is left."""
    built = recommender("LightGCN")
    wrapper = wrap(built, Transfer(alpha=0.5), sides=("users", "items"))
    step = wrapper.step_loss(first_batch(built), transferring=True)
    alone = [
        wrap(built, Transfer(alpha=0.5), sides=(side,)).step_loss(first_batch(built), True)
        for side in ("users", "items")
    ]
    assert step.transfer.item() > max(part.transfer.item() for part in alone)
    assert "forward" not in vars(built.module)


def test_a_table_of_the_other_side_is_refused():
    built = recommender("BPR")
    with pytest.raises(BadInput, match=r"item_embedding has 31 rows, but there are 41 users"):
        wrap(built, Transfer(), tap=Tap(name="item_embedding"))


def test_decay_lets_alpha_fall_in_a_line():
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(alpha=0.4, schedule="decay"))
    alphas = []
    for epoch in range(4):
        wrapper.start_epoch(epoch, 4)
        alphas.append(wrapper.alpha)
    assert alphas == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_joint_loss_by_hand():
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(alpha=0.25, balance="none"))
    step = wrapper.step_loss(first_batch(built), transferring=True)
    expected = 0.75 * step.model.item() + 0.25 * step.transfer.item()
    assert step.total.item() == pytest.approx(expected)


def test_users_without_profile_are_masked_not_zeroed():
    built = recommender("BPR")
    users, vectors = targets()
    known = [i for i, user in enumerate(users) if int(user[1:]) < 20]
    some = ([users[i] for i in known], vectors[known])
    wrapper = wrap(built, Transfer(alpha=1.0), rows=some)
    wrapper.step_loss(first_batch(built), transferring=True).total.backward()
    moved = built.module.user_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert {built.tokens["user_id"][i] for i in moved.tolist()} <= set(some[0])
    assert len(moved) > 5


def test_a_batch_without_any_profile_trains_on_the_model_loss():
    built = recommender("BPR")
    nobody = (["stranger"], targets()[1][:1])
    step = wrap(built, Transfer(), rows=nobody).step_loss(first_batch(built), transferring=True)
    assert step.transfer is None
    assert step.total is step.model


def test_balanced_alpha_is_the_share_of_the_pull_on_the_layer():
    """Whatever the model's loss is multiplied by, the transfer's share of the gradient is alpha."""
    for size in (0.01, 1.0, 1000.0):
        built = recommender("BPR")
        own_loss = built.loss
        built.loss = lambda batch, own=own_loss, size=size: size * own(batch)
        tap = Tap(kind="parameter", name="user_embedding.weight")
        wrapper = wrap(built, Transfer(alpha=0.25, balance="gradient"), tap=tap)
        step = wrapper.step_loss(first_batch(built), transferring=True)
        model_pull, whole_pull = (
            torch.autograd.grad(loss, built.module.user_embedding.weight, retain_graph=True)[0]
            for loss in (step.model, step.total)
        )
        transfer_pull = whole_pull - 0.75 * model_pull
        assert (transfer_pull.norm() / model_pull.norm()).item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(("scale", "expected"), [("none", 1.0), (0.25, 0.25), ("layer", None)])
def test_targets_are_compared_on_the_asked_scale(scale, expected):
    built = recommender("BPR")
    wrapper = wrap(built, Transfer(scale=scale))
    seen = {}
    align = wrapper.sides[0].losses.align
    align.forward = lambda hidden, target: seen.update(h=hidden, t=target) or hidden.sum()
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True)
    unscaled = wrapper.sides[0].targets.vectors[built.ids("users", batch)]
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
    """With hardly a learning rate no epoch improves: both arms stop at the same epoch."""
    for transfer in (None, Transfer(), Transfer(schedule="joint")):
        built = recommender("BPR", learning_rate=1e-30)
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
    with pytest.raises(BadInput, match=r"no longer finite in epoch \d+ .*Lower learning_rate"):
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
    with pytest.raises(
        BadInput, match=r"freeze: nonsense matches no parameter of NeuMF\. Choose among"
    ):
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
        (
            Tap(name="user_tower"),
            r"BPR has no module user_tower to tap\. Choose one of user_embedding",
        ),
        (Tap(kind="method", name="aggregate"), "BPR has no method aggregate.*get_user_embedding"),
        (Tap(kind="parameter", name="w"), r"BPR has no parameter w .*user_embedding\.weight"),
        (Tap(name="user_embedding", start=10, stop=80), "slice 10:80 does not fit.*64 wide"),
        (Tap(name="user_embedding", stop="half"), "32 wide, the targets are 64 wide"),
    ],
)
def test_taps_that_cannot_be_are_explained(tap, message):
    built = recommender("BPR")
    with pytest.raises(BadInput, match=message):
        wrap(built, Transfer(), tap=tap, rows=targets())


def test_a_tap_that_does_not_fire_is_explained():
    silent = Tap(kind="method", name="dump_parameters")
    with pytest.raises(
        BadInput, match=r"NeuMF: the method dump_parameters does not fire.*module u"
    ):
        probe("NeuMF", {}, silent)
    # A tap may fire on toy data and be silent in a real batch.
    built = recommender("BPR")
    wrapper = wrap(built, Transfer())
    own = built.module.calculate_loss
    built.module.calculate_loss = lambda _: built.module.get_item_embedding(batch["item_id"]).sum()
    batch = first_batch(built)
    with pytest.raises(
        BadInput, match=r"BPR: the module user_embedding does not fire .* module it"
    ):
        wrapper.step_loss(batch, transferring=True)
    built.module.calculate_loss = own
    assert wrapper.step_loss(batch, transferring=True).transfer > 0


def test_parameter_rows_can_be_tapped():
    built = recommender("BPR")
    tap = Tap(kind="parameter", name="user_embedding.weight")
    wrapper = wrap(built, Transfer(alpha=1.0), tap=tap)
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True).total.backward()
    moved = built.module.user_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert moved.tolist() == built.ids("users", batch).unique().tolist()
    assert len(USERS) > len(moved) / 2
    assert built.module.user_embedding.embedding_dim == WIDTH
