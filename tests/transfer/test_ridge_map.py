"""The alignment `mapped`: its regression, its weights, and the models that it works for."""

import numpy as np
import pytest
import torch

from models.config import Transfer
from models.recommenders.registry import MODELS
from models.transfer.ridge_map import RidgeMap
from tests.support.toy_recommender import recommender, targets, train, weights, wrap

MAPPED = Transfer(alignment="mapped", schedule="joint", alpha=0.5)


def a_map(k: float = 5.0, ridge: float = 2.0):
    """Seven rows; row 0 is padding, row 6 has no target."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(7, 4, generator=generator)
    known = torch.tensor([False, *[True] * 5, False])
    target[~known] = 0
    counts = torch.tensor([0, 1, 2, 5, 20, 100, 7])
    settings = Transfer(alignment="mapped", shrinkage=k, ridge=ridge)
    vectors = torch.randn(7, 3, generator=generator)
    return RidgeMap(settings, target, known, counts, 3), target, vectors, counts


def test_the_map_is_the_weighted_ridge_regression():
    """Each row enters as often as its weight says, the penalty as rows of its root."""
    mapped, target, vectors, counts = a_map()
    ids = torch.tensor([1, 3, 4, 5, 6])
    assert mapped.pair(ids, vectors[ids]) is None
    mapped.refit()
    rows = ids[:4].numpy()
    n = counts.numpy()[rows]
    root = np.sqrt(n / (n + 5.0))[:, None]
    known = target.numpy()[rows]
    penalty = np.sqrt(2.0 * (known**2).sum(axis=1).mean()) * np.eye(4)
    system = np.vstack((root * known, penalty))
    wanted = np.vstack((root * vectors.numpy()[rows], np.zeros((4, 3))))
    fitted = np.linalg.lstsq(system, wanted, rcond=None)[0]
    layer, drawn_to = mapped.pair(torch.tensor([2]), vectors[[2]])
    pull = np.sqrt(5.0 / 7.0)
    torch.testing.assert_close(layer, float(pull) * vectors[[2]])
    expected = (pull * target.numpy()[[2]] @ fitted).astype(np.float32)
    np.testing.assert_allclose(drawn_to.numpy(), expected, rtol=1e-4)


def test_the_map_does_not_depend_on_the_scale_of_targets():
    """Nor on their axes: what is foretold stays."""
    first, target, vectors, counts = a_map()
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0]
    settings = Transfer(alignment="mapped", shrinkage=5.0, ridge=2.0)
    known = torch.tensor([False, *[True] * 5, False])
    second = RidgeMap(settings, 30 * target @ turn, known, counts, 3)
    ids = torch.arange(1, 6)
    for one in (first, second):
        one.pair(ids, vectors[ids])
        one.refit()
    torch.testing.assert_close(first.pair(ids, vectors[ids]), second.pair(ids, vectors[ids]))


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "NeuMF", "SimpleX", "MultiVAE"])
def test_both_sides_are_drawn_to_what_a_wider_embedding_foretells(model):
    """Far from the first epoch, the layer is nearer to its map with transfer than without."""
    sides = ("users", "items") if MODELS[model].default_tap("items") else ("users",)

    def distances(alpha: float) -> float:
        built = recommender(model, learning_rate=0.01)
        settings = MAPPED.model_copy(update={"alpha": alpha, "ridge": 0.01})
        wrapper = wrap(built, settings, sides=sides)
        for side in wrapper.sides:
            side.map = RidgeMap(
                settings,
                built.align(*targets(side.side, 96), side.side).vectors,
                side.targets.known,
                built.counts(side.side),
                side.map._vectors.shape[1],
            )
        fitted = train(built, wrapper, epochs=8)
        assert fitted.epochs[0].transfer_loss == 0
        layer = [(s.map._vectors - s.map._foretold)[s.targets.known] for s in wrapper.sides]
        norm = [s.map._vectors[s.targets.known] for s in wrapper.sides]
        return sum(float(a.norm() / b.norm()) for a, b in zip(layer, norm, strict=True))

    assert distances(0.9) < 0.9 * distances(0.0)


def test_rows_with_few_interactions_are_pulled_most():
    built = recommender("BPR")
    wrapper = wrap(built, MAPPED)
    pull, counts = wrapper.sides[0].map.pull, built.counts("users")
    torch.testing.assert_close(pull, 50 / (50 + counts.float()))
    assert int(counts.sum()) == len(built.train_users)


def test_a_baseline_has_no_map_and_alpha_zero_changes_nothing():
    baseline, silent = recommender("MultiVAE"), recommender("MultiVAE")
    train(baseline, wrap(baseline, None), epochs=3)
    train(silent, wrap(silent, MAPPED.model_copy(update={"alpha": 0.0})), epochs=3)
    for name, value in weights(baseline).items():
        np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)
