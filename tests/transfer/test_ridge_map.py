"""The alignment `mapped`: its regression, its weights, and the models that it works for."""

import numpy as np
import pytest
import torch

from models.config import Budget, Transfer
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.recommenders.registry import MODELS
from models.training.training_loop import fit
from models.transfer.ridge_map import RidgeMap
from tests.support.toy_recommender import (
    ITEMS,
    N_ITEMS,
    UNIVERSE,
    USERS,
    interactions,
    recommender,
    targets,
    train,
    weights,
    wrap,
)

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


def test_the_first_map_is_the_principal_axes_on_the_asked_scale():
    mapped, target, vectors, _ = a_map()
    ids = torch.arange(1, 6)
    _, drawn_to = mapped.pair(ids, vectors[ids], 0.3)
    foretold = drawn_to / mapped.pull[ids, None].sqrt()
    assert float(foretold.square().mean().sqrt()) == pytest.approx(0.3, rel=1e-5)
    left, values, _ = np.linalg.svd(target[ids].numpy() - target[ids].numpy().mean(axis=0))
    expected = left[:, :3] * values[:3]
    found = foretold.numpy()
    likeness = np.abs((expected * found).sum(axis=0))
    norms = np.linalg.norm(expected, axis=0) * np.linalg.norm(found, axis=0)
    np.testing.assert_allclose(likeness, norms, rtol=1e-4)


def test_the_map_moves_by_the_weighted_ridge_regression_of_what_it_missed():
    """Solved here as least squares: rows times the root of their weight, the penalty as rows."""
    mapped, target, vectors, counts = a_map()
    ids = torch.tensor([1, 3, 4, 5, 6])
    mapped.pair(ids, vectors[ids], 0.3)
    before = mapped._map.numpy()
    mapped.refit()
    rows = ids[:4].numpy()  # row 6 has no target
    n = counts.numpy()[rows]
    weight = n / (n + 5.0)
    known, wanted = target.numpy()[rows], vectors.numpy()[rows]
    middle, mean = (np.average(each, axis=0, weights=weight) for each in (known, wanted))
    known, wanted, root = known - middle, wanted - mean, np.sqrt(weight)[:, None]
    penalty = np.sqrt(2.0 * (known**2).sum(axis=1).mean()) * np.eye(4)
    system = np.vstack((root * known, penalty))
    missed = np.vstack((root * (wanted - known @ before), np.zeros((4, 3))))
    moved = before + np.linalg.lstsq(system, missed, rcond=None)[0]
    np.testing.assert_allclose(mapped._map.numpy(), moved, rtol=1e-3, atol=1e-5)
    layer, drawn_to = mapped.pair(torch.tensor([2]), vectors[[2]], 0.3)
    pull = np.sqrt(5.0 / 7.0)
    torch.testing.assert_close(layer, float(pull) * vectors[[2]])
    expected = pull * (mean + (target.numpy()[[2]] - middle) @ moved)
    np.testing.assert_allclose(drawn_to.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_a_layer_that_is_where_it_is_drawn_to_does_not_move_the_map():
    """Else both would collapse over the epochs."""
    mapped, _, vectors, _ = a_map()
    ids = torch.arange(1, 6)
    mapped.pair(ids, vectors[ids], 0.3)
    first = mapped._map.clone()
    mapped.pair(ids, mapped._foretold[ids].clone(), 0.3)
    for _ in range(20):
        mapped.refit()
    torch.testing.assert_close(mapped._map, first, rtol=1e-3, atol=1e-5)


def test_the_scale_and_the_number_of_targets_columns_do_not_matter():
    """Narrower than the layer, and 30 times larger: the same vectors, up to their axes' signs."""
    settings = Transfer(alignment="mapped", shrinkage=5.0, ridge=2.0)
    _, target, vectors, counts = a_map()
    known = torch.tensor([False, *[True] * 5, False])
    ids, wide = torch.arange(1, 6), torch.cat((vectors, vectors), dim=1)
    found = []
    for factor in (1.0, 30.0):
        one = RidgeMap(settings, factor * target, known, counts, 6)
        one.pair(ids, wide[ids], 0.3)
        one.refit()
        found.append(one.pair(ids, wide[ids], 0.3)[1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "NeuMF", "SimpleX", "MultiVAE"])
def test_both_sides_are_drawn_to_what_a_wider_embedding_foretells(model):
    """Far from the first epoch, the layer is nearer to its map with transfer than without."""
    tap = MODELS[model].default_tap("items")  # decoder rows, 600 wide, need more epochs
    sides = ("users", "items") if tap and tap.kind != "parameter" else ("users",)

    def distances(alpha: float) -> float:
        built = recommender(model, learning_rate=0.01)
        settings = MAPPED.model_copy(
            update={"alpha": alpha, "scale": 0.1, "ridge": 100.0, "shrinkage": 50.0}
        )
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
        assert fitted.epochs[-1].transfer_loss > 0
        layer = [(s.map._vectors - s.map._foretold)[s.targets.known] for s in wrapper.sides]
        norm = [s.map._vectors[s.targets.known] for s in wrapper.sides]
        return sum(float(a.norm() / b.norm()) for a, b in zip(layer, norm, strict=True))

    assert distances(0.9) < 0.9 * distances(0.0)


def test_rows_with_few_interactions_are_pulled_most():
    built = recommender("BPR")
    wrapper = wrap(built, MAPPED)
    pull, counts = wrapper.sides[0].map.pull, built.counts("users")
    torch.testing.assert_close(pull, 100 / (100 + counts.float()))
    assert int(counts.sum()) == len(built.train_users)


def test_an_item_that_nobody_has_had_is_where_the_map_foretells_from_its_text():
    new = {ITEMS[0], ITEMS[-1]}  # one of each taste
    kept = [pair for pair in zip(*interactions()[0], strict=True) if pair[1] not in new]
    settings = {"train_batch_size": 64, "learning_rate": 0.01}
    log = Log(*map(list, zip(*kept, strict=True)))
    built = Recommender("BPR", settings, log, UNIVERSE, 1, "cpu")
    wrapper = wrap(built, MAPPED, sides=("items",))
    fit(built, wrapper, None, Budget(epochs=8, patience=99), 1)
    ids = built.item_ids([ITEMS[0], ITEMS[-1]])
    table = built.module.get_parameter("item_embedding.weight")
    torch.testing.assert_close(table[ids].detach(), wrapper.sides[0].map._foretold[ids])
    scores = built.scores(torch.as_tensor(built.user_ids(USERS)))[:, built.item_ids(ITEMS)]
    places = (scores[:, :, None] < scores[:, None, :]).sum(dim=2)[:, [0, -1]].float()
    theirs, others = places[0::2].mean(dim=0), places[1::2].mean(dim=0)
    assert theirs[0] < N_ITEMS / 2 < others[0]
    assert others[1] < N_ITEMS / 2 < theirs[1]


def test_a_baseline_has_no_map_and_alpha_zero_changes_nothing():
    baseline, silent = recommender("MultiVAE"), recommender("MultiVAE")
    train(baseline, wrap(baseline, None), epochs=3)
    train(silent, wrap(silent, MAPPED.model_copy(update={"alpha": 0.0})), epochs=3)
    for name, value in weights(baseline).items():
        np.testing.assert_array_equal(value, weights(silent)[name], err_msg=name)
