"""Blend: both parts rank as they do alone, share knowledge, and are saved and carried over."""

import pytest
import torch
from safetensors.torch import load, save

from models.recommenders.ials import Ials
from models.recommenders.recommender import Recommender
from models.training.warm_start import rows_of, start_from
from tests.support.toy_recommender import N_ITEMS, N_USERS, recommender, targets, train, wrap

EVERYBODY = torch.arange(1, N_USERS + 1)


def trained(model: str, side: str | None = None, **given) -> Recommender:
    built = recommender(model, **given)
    if side is not None:
        built.take_embeddings(0.5, {side: built.align(*targets(side), side)})
    train(built, wrap(built, None), epochs=3)
    return built


def ranks(built: Recommender) -> torch.Tensor:
    return built.scores(EVERYBODY)[:, 1:].double().argsort(dim=1, stable=True)


@pytest.mark.parametrize("side", [None, "items"])
@pytest.mark.parametrize(("share", "part"), [(1.0, "iALS"), (0.0, "EASE")])
def test_at_either_end_it_is_one_of_its_parts(share, part, side):
    blend = trained("Blend", side, ials_share=share, ease_reg_weight=3.0)
    alone = trained(part, side, **({"reg_weight": 3.0} if part == "EASE" else {}))
    assert torch.equal(ranks(blend), ranks(alone))


def test_scores_are_the_weighed_sum_of_standardised_scores():
    blend = trained("Blend", "items", ials_share=0.25)
    inputs = blend.interaction(EVERYBODY)
    both = Ials.full_sort_predict(blend.module, inputs), blend.module.ease.full_sort_predict(inputs)
    low_rank, full = ((s[:, 1:] - s[:, 1:].mean(1, keepdim=True)) for s in both)
    expected = 0.25 * low_rank / low_rank.std(1, keepdim=True)
    expected += 0.75 * full / full.std(1, keepdim=True)
    torch.testing.assert_close(blend.scores(EVERYBODY)[:, 1:], expected)
    items = torch.tensor([1, N_ITEMS])
    pairs = blend.predict(EVERYBODY[:2], items)
    torch.testing.assert_close(pairs, expected[[0, 1], items - 1])


def test_knowledge_enters_both_parts():
    plain, informed = trained("Blend").weights(), trained("Blend", "items").weights()
    for name in ("item_factors", "ease.item_weights"):
        assert not torch.allclose(plain[name], informed[name]), name


def test_it_is_saved_whole_and_starts_warm_from_its_vectors_alone():
    model = trained("Blend", "users")
    again = recommender("Blend", seed=2)
    again.restore(load(save(model.weights())))
    assert torch.equal(again.scores(EVERYBODY), model.scores(EVERYBODY))
    start = recommender("Blend", seed=3)
    computed = start.weights()["ease.item_weights"]
    start_from(start, model.weights(), rows_of(model))
    assert torch.equal(start.module.item_factors, model.module.item_factors)
    assert torch.equal(start.weights()["ease.item_weights"], computed)
