"""iALS: a sweep against dense solutions in float64, its objective, its prior and its resumption."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from models.config import Budget, Side, Tap
from models.errors import BadInput
from models.publishing.vector_export import scored_by_product, vectors
from models.recommenders.closed_form import SideInformation
from models.recommenders.ials import Ials
from models.recommenders.tap_probe import TapPoint, probe
from models.training.training_loop import fit
from models.training.validation import Holdout
from models.training.warm_start import rows_of, start_from
from tests.support.toy_recommender import (
    N_ITEMS,
    N_USERS,
    interactions,
    recommender,
    targets,
    train,
    weights,
    wrap,
)
from tests.training.test_resume import Kept, Killed, require_equal

SETTINGS = {
    "embedding_size": 6,
    "reg_weight": 0.03,
    "reg_exponent": 1.0,
    "unobserved_weight": 0.2,
    "init_scale": 0.5,
    "prior_reg": 0.7,
}
SHAPE = (41, 26)
ALPHA = 0.6


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Histories of 0 to 19 items, shorter and longer than there are columns; item 25 has nobody."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(1, 41), np.arange(40) // 2)
    items = np.concatenate([1 + rng.permutation(24)[: n // 2] for n in range(40)])
    order = rng.permutation(len(users))
    return users[order], items[order]


def knowledge(items=True, users=True) -> SideInformation:
    rng = np.random.default_rng(4)
    return SideInformation(
        rng.normal(size=(26, 5)) if items else None,
        np.arange(26) % 5 != 2 if items else None,
        rng.normal(size=(41, 9)) if users else None,
        np.arange(41) % 4 != 1 if users else None,
    )


def built(side: SideInformation | None = None, alpha=ALPHA, seed=1, **changes) -> Ials:
    module = Ials(*pairs(), SHAPE, SETTINGS | changes, seed, torch.device("cpu"))
    if side is not None:
        module.take_prior(alpha, side)
    return module.double()


def unit(vectors, known) -> np.ndarray:
    rows = np.where(known[:, None], vectors - vectors[known].mean(0), 0)
    made = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return made.astype(np.float32).astype(np.float64)  # as the module keeps them


def dense_half(seen, own, other, embeddings, settings) -> np.ndarray:
    """Equations 2 and 3 as they stand, a dense system per row; `seen` is 0 and 1."""
    n_rows, width = own.shape
    reg = (
        settings["reg_weight"]
        * (seen.sum(1) + settings["unobserved_weight"] * (seen.shape[1] - 1))
        ** settings["reg_exponent"]
    )
    mean = np.zeros_like(own)
    if embeddings is not None:
        root = np.sqrt(reg)[:, None]
        ridge = np.sqrt(settings["prior_reg"] * reg[1:].mean()) * np.eye(embeddings.shape[1])
        mapped = np.linalg.lstsq(
            np.vstack([root * embeddings, ridge]),
            np.vstack([root * own, np.zeros((len(ridge), width))]),
            rcond=None,
        )[0]
        mean = ALPHA * embeddings @ mapped
    solved = np.zeros_like(own)
    for row in range(1, n_rows):
        weight = seen[row] + settings["unobserved_weight"]
        system = (other * weight[:, None]).T @ other + reg[row] * np.eye(width)
        solved[row] = np.linalg.solve(system, seen[row] @ other + reg[row] * mean[row])
    return solved


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sides", [(False, False), (True, False), (False, True), (True, True)])
def test_a_sweep_is_the_dense_solution(sides, exponent):
    side = knowledge(*sides)
    module = built(side, reg_exponent=exponent)
    users, items = (p.numpy().copy() for p in (module.user_factors, module.item_factors))
    seen = np.zeros(SHAPE)
    seen[pairs()] = 1
    known = {
        "users": unit(side.users, side.users_known) if sides[1] else None,
        "items": unit(side.items, side.items_known) if sides[0] else None,
    }
    settings = SETTINGS | {"reg_exponent": exponent}
    for _ in range(2):
        users = dense_half(seen, users, items, known["users"], settings)
        items = dense_half(seen.T, items, users, known["items"], settings)
        module.sweep()
    np.testing.assert_allclose(module.user_factors.numpy(), users, atol=1e-6)
    np.testing.assert_allclose(module.item_factors.numpy(), items, atol=1e-6)


def test_single_precision_is_close_to_double():
    single, double = built().float(), built()
    for _ in range(3):
        single.sweep()
        double.sweep()
    np.testing.assert_allclose(
        single.item_factors.numpy(), double.item_factors.numpy(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("side", [None, knowledge()])
def test_the_objective_never_rises(side):
    module = built(side)
    course = [module.objective()]
    for _ in range(12):
        module.sweep()
        course.append(module.objective())
    falls = -np.diff(course)
    assert (falls > -1e-9).all()
    assert falls[0] > 0.1 * course[0]


def test_the_objective_without_knowledge_by_hand():
    module = built()
    module.sweep()
    users, items = module.user_factors.numpy(), module.item_factors.numpy()
    scores, seen = users @ items.T, np.zeros(SHAPE)
    seen[pairs()] = 1
    reg = [0.03 * (seen.sum(1) + 0.2 * 25), 0.03 * (seen.sum(0) + 0.2 * 40)]
    expected = (seen * (scores - 1) ** 2).sum() + 0.2 * (scores**2).sum()
    expected += (reg[0] @ users**2).sum() + (reg[1] @ items**2).sum()
    assert module.objective() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("alpha", "side"),
    [
        (0.0, knowledge()),
        (ALPHA, SideInformation()),
        (ALPHA, SideInformation(np.ones((26, 3)), np.zeros(26, bool))),
    ],
)
def test_no_share_or_no_knowledge_is_ials_to_the_bit(alpha, side):
    plain, silent = built().float(), built(side, alpha).float()
    for _ in range(3):
        plain.sweep()
        silent.sweep()
        assert plain.objective() == silent.objective()
    assert torch.equal(plain.item_factors, silent.item_factors)
    assert torch.equal(plain.user_factors, silent.user_factors)


def test_axes_and_scale_of_embeddings_do_not_matter():
    side = knowledge(users=False)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    turned = SideInformation(40 * side.items @ turn + 3, side.items_known)
    one, other = built(side), built(turned)
    for _ in range(3):
        one.sweep()
        other.sweep()
    np.testing.assert_allclose(one.item_factors.numpy(), other.item_factors.numpy(), atol=1e-5)


def test_an_item_that_nobody_knows_is_where_its_embedding_says():
    toy = recommender("iALS", embedding_size=8)
    tokens, rows = targets("items", 12)
    rows = np.append(rows, rows[tokens.index("i1")][None], axis=0)
    module = Ials(
        toy.train_users,
        toy.train_items,
        (toy.n_users, toy.n_items + 1),
        toy.settings,
        1,
        torch.device("cpu"),
    )
    placed = np.zeros((toy.n_items + 1, 12), np.float32)
    placed[toy.item_ids(tokens)] = rows[:-1]
    placed[-1] = rows[-1]
    module.take_prior(1.0, SideInformation(placed, np.arange(toy.n_items + 1) > 0))
    for _ in range(10):
        module.sweep()
    scores = module.user_factors @ module.item_factors[-1]
    even, odd = (toy.user_ids([f"u{n}" for n in range(start, N_USERS, 2)]) for start in (0, 1))
    assert scores[even].min() > 0 > scores[odd].max()


def trained(side: Side | None, checkpoints=None, killed_after=0):
    model = recommender("iALS", embedding_size=8)
    if side is not None:
        model.take_embeddings(0.5, {side: model.align(*targets(side, 12), side)})
    holdout = Holdout.from_pairs(model, interactions()[1])

    def on_epoch(done: int) -> None:
        if done == killed_after:
            raise Killed

    fitted = fit(
        model,
        wrap(model, None),
        lambda: holdout.score(model, "ndcg", 5),
        Budget(epochs=5, patience=99),
        1,
        on_epoch,
        checkpoints,
    )
    return weights(model), fitted


@pytest.mark.parametrize("side", [None, "users", "items"])
def test_it_resumes_to_the_bit(side):
    whole, kept = trained(side), Kept()
    for moment in (1, 3):
        with pytest.raises(Killed):
            trained(side, kept, moment)
    require_equal(trained(side, kept), whole)


def test_seeds_differ_and_one_seed_repeats():
    first, again, other = (recommender("iALS", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.module.item_factors, again.module.item_factors)
    assert not torch.equal(first.module.item_factors, other.module.item_factors)
    spread = recommender("iALS", init_scale=0.4, embedding_size=64).module.item_factors[1:].std()
    assert float(spread) == pytest.approx(0.4 / 8, rel=0.1)


def test_save_load_and_warm_start():
    model = recommender("iALS")
    train(model, wrap(model, None), epochs=3)
    again = recommender("iALS", seed=2)
    again.restore(load(save(model.weights())))
    everybody = torch.arange(1, N_USERS + 1)
    assert torch.equal(again.scores(everybody), model.scores(everybody))
    start = recommender("iALS", seed=3)
    start_from(start, model.weights(), rows_of(model))
    assert torch.equal(start.module.item_factors, model.module.item_factors)


def test_knowledge_enters_without_a_tap():
    assert probe("iALS", {}) == TapPoint(None, None)
    with pytest.raises(BadInput, match=r"models\.iALS\.tap: iALS has no layers to align"):
        probe("iALS", {}, Tap(name="user_factors"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prior_reg": 0.0}, "0.0 is not above 0. Set a number above 0."),
        ({"embedding_size": -1}, "-1 is not from 1 to"),
        ({"unobserved_weight": float("nan")}, "nan is not from 0"),
        ({"learning_rate": 0.1}, "learning_rate is not a hyper-parameter of iALS; known: "),
        ({"reg_wieght": 0.1}, "did you mean reg_weight?"),
    ],
)
def test_bad_hyperparameters_are_named_with_their_fix(given, message):
    with pytest.raises(BadInput) as refused:
        recommender("iALS", **given)
    assert message in str(refused.value)
    assert str(refused.value).startswith("models.iALS.hyperparameters.")


def test_a_system_without_solution_names_what_to_raise():
    with pytest.raises(BadInput, match=r"reg_weight: too small to solve for\. Raise it\."):
        built(reg_weight=0.0, unobserved_weight=0.0).sweep()


def test_vectors_are_exported_and_their_products_are_the_scores():
    model = recommender("iALS", embedding_size=8)
    train(model, wrap(model, None), epochs=2)
    users, items = vectors(model, "users"), vectors(model, "items")
    assert (len(users.ids), len(items.ids)) == (N_USERS, N_ITEMS)
    assert scored_by_product(model, users, items)


def test_an_objective_that_overflows_names_what_to_lower():
    model = recommender("iALS", reg_weight=1e38, unobserved_weight=1e9)
    with pytest.raises(BadInput, match=r"in epoch 0 .*Lower reg_weight or unobserved_weight\."):
        train(model, wrap(model, None), epochs=2)
