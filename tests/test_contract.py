"""What every model in the zoo must hold to; a new model is one more parameter."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from worlds import (
    ITEMS,
    N_ITEMS,
    N_USERS,
    USERS,
    WIDTH,
    recommender,
    targets,
    train,
    weights,
    wrap,
)

from models.config import Freeze, Transfer
from models.recommender import probe
from models.transfer.hooks import HookManager
from models.zoo import ZOO

MODELS = ("BPR", "NeuMF", "SimpleX", "MultiVAE")
USER_PARAMETER = {
    "BPR": "user_embedding.weight",
    "NeuMF": "user_mlp_embedding.weight",
    "SimpleX": "user_emb.weight",
    "MultiVAE": "encoder.0.weight",
}

pytestmark = pytest.mark.parametrize("model", MODELS)


def test_every_model_of_the_zoo_is_under_contract(model):
    assert set(MODELS) == set(ZOO)
    assert probe(model, {}) == (ZOO[model].tap, 64)


def first_batch(built):
    return next(iter(built.batches()))


def hooks_left(module: torch.nn.Module) -> list[str]:
    """Names of forward hooks and wrapped methods that are still on a model."""
    found = [name for name, part in module.named_modules() if part._forward_hooks]
    return found + [name for name in ("get_UI_aggregation",) if name in vars(module)]


def test_the_tap_fires_in_training_and_never_in_prediction(model, monkeypatch):
    built = recommender(model)
    captured = []
    original = HookManager._capture
    monkeypatch.setattr(
        HookManager, "_capture", lambda self, *a: captured.append(1) or original(self, *a)
    )
    wrapper = wrap(built, Transfer())
    wrapper.step_loss(first_batch(built), transferring=True)
    assert captured
    captured.clear()
    built.module.eval()
    built.scores(torch.arange(1, 5))
    wrapper.step_loss(first_batch(built), transferring=False)
    assert not captured
    assert not hooks_left(built.module)


def test_the_tap_yields_the_vectors_that_are_scored(model):
    """Moving what is tapped moves the scores of exactly the users whose rows were moved."""
    built = recommender(model)
    built.module.eval()
    users = torch.arange(1, N_USERS + 1)
    before = built.scores(users).clone()
    if model == "SimpleX":
        original = built.module.get_UI_aggregation
        built.module.get_UI_aggregation = lambda *a: original(*a) * torch.linspace(-1, 1, WIDTH)
        changed = (built.scores(users) != before).any(dim=1)
        assert changed.all()
        return
    if model == "MultiVAE":
        half = torch.cat((torch.linspace(-1, 1, WIDTH), torch.ones(WIDTH)))
        handle = built.module.encoder.register_forward_hook(lambda *a: a[2] * half)
        assert (built.scores(users) != before).any(dim=1).all()
        handle.remove()
        return
    with torch.no_grad():
        built.module.get_parameter(USER_PARAMETER[model])[3] += 1.0
    changed = (built.scores(users) != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [2]  # id 3 is row 2


def test_the_transfer_loss_alone_moves_the_user_parameters(model):
    built = recommender(model)
    wrapper = wrap(built, Transfer(alpha=1.0))
    losses = wrapper.step_loss(first_batch(built), transferring=True)
    losses.total.backward()
    gradient = built.module.get_parameter(USER_PARAMETER[model]).grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_targets_reach_their_own_users(model):
    """The rows that are compared belong to the same raw user, whatever the order of the file."""
    built = recommender(model)
    wrapper = wrap(built, Transfer(scale="none"))
    seen = {}
    wrapper.losses.align = lambda hidden, target: seen.update(h=hidden, t=target) or hidden.sum()
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True)
    rows = dict(zip(targets()[0], targets()[1], strict=True))
    expected = [rows[built.user_tokens[user]] for user in built.users_of(batch)[: len(seen["h"])]]
    np.testing.assert_array_equal(seen["t"].numpy(), np.stack(expected))


def test_alpha_zero_is_the_baseline_to_the_bit(model):
    baseline, silent = recommender(model), recommender(model)
    first = train(baseline, wrap(baseline, None))
    second = train(silent, wrap(silent, Transfer(alpha=0.0)))
    assert [e.valid_score for e in first.epochs] == [e.valid_score for e in second.epochs]
    assert [e.model_loss for e in first.epochs] == [e.model_loss for e in second.epochs]
    for name, value in weights(baseline).items():
        np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)


def test_transfer_draws_the_layer_to_the_targets(model):
    built = recommender(model, learning_rate=0.01)
    fitted = train(built, wrap(built, Transfer(alpha=1.0, schedule="joint", scale=0.1)), epochs=12)
    losses = [epoch.transfer_loss for epoch in fitted.epochs]
    assert losses[-1] < 0.8 * losses[0]


def test_save_and_load_change_nothing(model):
    built = recommender(model)
    train(built, wrap(built, Transfer()), epochs=2)
    again = recommender(model)  # the same seed: SimpleX samples its histories with it
    users = torch.arange(1, N_USERS + 1)
    built.module.eval()
    again.module.eval()
    assert (again.scores(users) != built.scores(users)).any()
    again.module.load_state_dict(load(save(built.module.state_dict())))
    torch.testing.assert_close(again.scores(users), built.scores(users), rtol=0, atol=0)


def test_frozen_layers_do_not_move_in_their_phase(model):
    name = USER_PARAMETER[model]
    layer = name.removesuffix(".weight")
    frozen = recommender(model)
    start = weights(frozen)
    transfer = Transfer(freeze=Freeze(transfer=(layer,), finetune=(layer,)))
    train(frozen, wrap(frozen, transfer), epochs=4)
    np.testing.assert_array_equal(weights(frozen)[name], start[name])
    moved = [key for key, value in weights(frozen).items() if (value != start[key]).any()]
    assert moved
    assert all(parameter.requires_grad for parameter in frozen.module.parameters())


def test_nothing_is_left_after_fine_tuning(model):
    built = recommender(model)
    fitted = train(built, wrap(built, Transfer()), epochs=4)
    assert [epoch.phase for epoch in fitted.epochs] == ["transfer"] * 2 + ["finetune"] * 2
    assert [epoch.transfer_loss is None for epoch in fitted.epochs] == [False, False, True, True]
    assert not hooks_left(built.module)


def test_all_item_scores_agree_with_predict(model):
    built = recommender(model)
    train(built, wrap(built, None), epochs=2)
    built.module.eval()
    users = torch.arange(1, N_USERS + 1)
    fast = built.scores(users)[:, 1:]
    with torch.no_grad():
        slow = built._pairwise_scores(users).view(N_USERS, N_ITEMS + 1)[:, 1:]
    if model == "NeuMF":
        fast = torch.sigmoid(fast)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    assert len(USERS) == N_USERS
    assert len(ITEMS) == N_ITEMS
