"""What every model of the registry must hold to; a new model is one row of `registry.MODELS`."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from models.config import Transfer
from models.recommenders import closed_form
from models.recommenders.registry import MODELS, UNSUPPORTED
from models.recommenders.tap_probe import TapPoint, probe
from models.schemas import KEYS
from models.training.model_contract import bent_scores, scores_of
from models.transfer.hooks import HookManager, listening
from tests.support.toy_recommender import (
    EVERYBODY,
    N_ITEMS,
    N_USERS,
    TRAINED,
    recommender,
    targets,
    train,
    typical_models,
    weights,
    wrap,
)

COMPUTED = [name for name, entry in MODELS.items() if entry.loader is None]
SIDES = [
    (name, side)
    for name in TRAINED
    for side in ("users", "items")
    if MODELS[name].default_tap(side)
]

every_tap = pytest.mark.parametrize(("model", "side"), SIDES)


def first_batch(built):
    built.module.train()
    return next(iter(built.batches()))


def hooks_left(module: torch.nn.Module) -> list[str]:
    """Names of forward hooks and wrapped methods that are still on a model."""
    found = [name for name, part in module.named_modules() if part._forward_hooks]
    return found + [
        name for name in HookManager.available(module, "method") if name in vars(module)
    ]


def scores(built) -> torch.Tensor:
    return scores_of(built, EVERYBODY)


def test_the_registry_is_as_large_as_promised():
    families = [MODELS[name].family for name in TRAINED]
    assert families.count("general") >= 20
    assert families.count("context-aware") >= 8
    assert families.count("sequential") >= 12
    assert not set(MODELS) & set(UNSUPPORTED)


@pytest.mark.parametrize("family", ["general", "context-aware", "sequential"])
def test_every_model_of_recboles_catalogue_has_a_row(family):
    package = f"recbole.model.{family.replace('-', '_')}_recommender"
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    listed = {
        name
        for module in modules
        for name, found in vars(importlib.import_module(f"{package}.{module.name}")).items()
        if inspect.isclass(found)
        and found.__module__ == f"{package}.{module.name}"
        and module.name == name.lower()
    }
    assert len(listed) > 15
    rows = {name: row.family for name, row in MODELS.items()}
    rows |= {name: row[0] for name, row in UNSUPPORTED.items()}
    assert {name for name in listed if rows.get(name) != family} == set()


@every_tap
def test_the_tap_fires_in_training_and_never_in_prediction(model, side, monkeypatch):
    built = recommender(model)
    wrapper = wrap(built, Transfer(), sides=(side,))
    captured = []
    original = HookManager._capture
    monkeypatch.setattr(
        HookManager, "_capture", lambda self, *a: captured.append(1) or original(self, *a)
    )
    batch = first_batch(built)
    wrapper.step_loss(batch, transferring=True)
    assert captured
    captured.clear()
    wrapper.step_loss(batch, transferring=False)
    scores(built)
    assert not captured
    assert not hooks_left(built.module)


@every_tap
def test_the_tap_yields_the_vectors_that_are_scored(model, side):
    """Changing what is tapped changes the scores of every user."""
    built = recommender(model)
    tap = MODELS[model].default_tap(side)
    before = scores(built)
    assert (bent_scores(built, tap, EVERYBODY) != before).any(dim=1).all()


@every_tap
def test_the_transfer_loss_alone_reaches_parameters(model, side):
    built = recommender(model)
    wrapper = wrap(built, Transfer(alpha=1.0, balance="none"), sides=(side,))
    losses = wrapper.step_loss(first_batch(built), transferring=True)
    (losses.total - 0.0 * losses.model).backward()
    gradients = [p.grad for p in built.module.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


@every_tap
def test_targets_reach_their_own_users_and_items(model, side):
    """The rows that are compared belong to the same raw id, whatever the order of the file."""
    built = recommender(model)
    wrapper = wrap(built, Transfer(scale="none"), sides=(side,))
    manager = wrapper.sides[0].losses
    seen = {}
    align = manager.align.forward
    manager.align.forward = lambda h, t: seen.update(hidden=h.detach(), target=t) or align(h, t)
    tap = MODELS[model].default_tap(side)
    yielded = []
    hear = listening(built.module, tap.kind, tap.name, lambda out, _: yielded.append(out))
    batch = first_batch(built)
    if tap.kind == "parameter":
        wrapper.step_loss(batch, transferring=True)
    else:
        with hear:
            wrapper.step_loss(batch, transferring=True)
    tokens, vectors = targets(side, seen["target"].shape[1])
    rows = {row.tobytes(): token for token, row in zip(tokens, vectors, strict=True)}
    named = [rows[row.numpy().tobytes()] for row in seen["target"]]
    raw = built.tokens[KEYS[side]]
    batch_tokens = {raw[i] for i in built.ids(side, batch).tolist()}
    if model != "LINE" and tap.pool is None and MODELS[model].family != "sequential":
        assert set(named) <= batch_tokens
    # A token's rows are one vector, wherever the model has no noise: two tokens' are not.
    if tap.kind == "parameter" or tap.rows == "all":
        table = {
            "parameter": lambda: built.module.get_parameter(tap.name),
            "module": lambda: yielded[0][tap.output],
            "method": lambda: yielded[0][tap.output],
        }[tap.kind]()
        ids = (built.user_ids if side == "users" else built.item_ids)(named)
        torch.testing.assert_close(seen["hidden"], table.detach()[ids])


@pytest.mark.parametrize("model", TRAINED)
def test_alpha_zero_is_the_baseline_to_the_bit(model):
    baseline, silent = recommender(model), recommender(model)
    first = train(baseline, wrap(baseline, None), epochs=3)
    second = train(silent, wrap(silent, Transfer(alpha=0.0)), epochs=3)
    assert [e.valid_score for e in first.epochs] == [e.valid_score for e in second.epochs]
    assert [e.model_loss for e in first.epochs] == [e.model_loss for e in second.epochs]
    for name, value in weights(baseline).items():
        np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)


@typical_models
def test_save_and_load_change_nothing(model):
    built = recommender(model)
    train(built, wrap(built, Transfer()), epochs=2)
    again = recommender(model)  # the same seed: SimpleX samples its histories with it
    trained = scores(built)
    assert (scores(again) != trained).any()
    again.restore(load(save(built.weights())))
    torch.testing.assert_close(scores(again), trained, rtol=0, atol=0)


@typical_models
def test_nothing_is_left_after_fine_tuning(model):
    built = recommender(model)
    trainable = [parameter.requires_grad for parameter in built.module.parameters()]
    fitted = train(built, wrap(built, Transfer()), epochs=4)
    assert [epoch.phase for epoch in fitted.epochs] == ["transfer"] * 2 + ["finetune"] * 2
    assert [epoch.transfer_loss is None for epoch in fitted.epochs] == [False, False, True, True]
    assert not hooks_left(built.module)
    assert [parameter.requires_grad for parameter in built.module.parameters()] == trainable


@pytest.mark.parametrize("model", ["BPR", "NeuMF", "LightGCN", "MultiVAE", "DeepFM", "SASRec"])
def test_frozen_layers_do_not_move_in_their_phase(model):
    built = recommender(model)
    name = next(name for name, _ in built.module.named_parameters())
    start = weights(built)
    transfer = Transfer.model_validate({"freeze": {"transfer": [name], "finetune": [name]}})
    train(built, wrap(built, transfer), epochs=4)
    np.testing.assert_array_equal(weights(built)[name], start[name])
    assert any((value != start[key]).any() for key, value in weights(built).items())


@pytest.mark.parametrize("model", ["BPR", "NeuMF", "MultiVAE", "LightGCN", "CDAE", "DeepFM"])
def test_transfer_draws_the_layer_to_the_targets(model):
    built = recommender(model, learning_rate=0.01)
    fitted = train(built, wrap(built, Transfer(alpha=1.0, schedule="joint", scale=0.1)), epochs=12)
    losses = [epoch.transfer_loss for epoch in fitted.epochs]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("model", [*TRAINED, "iALS", *COMPUTED])
def test_all_item_scores_rank_as_predict_does(model):
    if model == "Random":
        pytest.skip("it draws a new order each time")
    if model == "EASE":
        pytest.skip("it is ours: tests/recommenders/test_closed_form.py compares it with RecBole's")
    built = recommender(model)
    if model not in COMPUTED:
        train(built, wrap(built, None), epochs=2)
    fast = scores(built)
    torch.manual_seed(5)
    slow = built.pairwise_scores(EVERYBODY).view(N_USERS, N_ITEMS + 1)[:, 1:]
    if model in ("DiffRec", "LDiffRec"):
        pytest.skip("its prediction draws noise per row of the batch")
    order = fast.argsort(dim=1, descending=True)
    ranked = torch.gather(slow.double(), 1, order)
    rounding = 1e-5 * ranked.abs().max()
    assert (ranked.diff(dim=1) <= rounding).all()


@pytest.mark.parametrize("model", COMPUTED)
def test_computed_models_rank_and_have_a_baseline_alone(model):
    built = recommender(model)
    fitted = train(built, wrap(built, None))
    assert [epoch.phase for epoch in fitted.epochs] == ["train"]
    assert fitted.epochs[0].valid_score >= 0
    assert probe(model, {}) == (TapPoint(None, None) if model == "EASE" else None)
    assert torch.isfinite(scores(built)).all()


def test_ease_is_saved_and_loaded_to_the_bit():
    built, other = recommender("EASE"), recommender("EASE", reg_weight=1.0)
    assert not torch.equal(scores(built), scores(other))
    other.restore(load(save(built.weights())))
    assert torch.equal(scores(built), scores(other))


def test_personal_models_beat_chance_on_two_tastes():
    """Users like one half of the items each: what they hold out is in their half."""
    for model in ("EASE", "iALS", "ItemKNN", "BPR", "LightGCN", "SASRec"):
        built = recommender(model, **({"learning_rate": 0.02} if model in TRAINED else {}))
        fitted = train(built, wrap(built, None), epochs=20)
        assert max(epoch.valid_score for epoch in fitted.epochs) > 0.2, model


@pytest.mark.parametrize("model", ["EASE", "Blend"])
def test_ease_is_fitted_once_and_not_at_all_from_weights(model, monkeypatch):
    fits, fit = [], closed_form.fit
    monkeypatch.setattr(closed_form, "fit", lambda *given: fits.append(given) or fit(*given))
    built = recommender(model)
    built.take_embeddings(0.5, {"items": built.align(*targets("items"), "items")})
    users = torch.arange(1, built.n_users)
    weights, scores = built.weights(), built.scores(users)
    assert len(fits) == 1
    loaded = recommender(model)
    loaded.restore(weights)
    assert torch.equal(loaded.scores(users), scores)
    assert len(fits) == 1


def test_ease_takes_embeddings_and_alpha_zero_is_ease_to_the_bit():
    plain, extended = recommender("EASE"), recommender("EASE")
    aligned = {side: extended.align(*targets(side), side) for side in ("users", "items")}
    extended.take_embeddings(0.0, aligned)
    assert extended.weights().keys() == plain.weights().keys()
    users = torch.arange(1, plain.n_users)
    assert torch.equal(extended.scores(users), plain.scores(users))
    extended.take_embeddings(0.5, {"items": aligned["items"]})
    scores = extended.scores(users)
    assert not torch.allclose(scores, plain.scores(users), atol=1e-3)
    loaded = recommender("EASE")
    loaded.restore(extended.weights())
    assert torch.equal(loaded.scores(users), scores)
    extended.take_embeddings(0.5, aligned)
    loaded.restore(extended.weights())
    assert torch.equal(loaded.scores(users), extended.scores(users)), "users' weights come along"
