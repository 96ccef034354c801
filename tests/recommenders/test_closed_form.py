"""Closed-form models: against hand values, RecBole, another solver and the objective itself."""

import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy import sparse

from models.errors import BadInput
from models.evaluation.ranking_metrics import HeldOut, ranking_metrics
from models.recommenders import closed_form
from models.recommenders.closed_form import (
    PEAK_MATRICES,
    ClosedForm,
    SideInformation,
    fit,
)

N_USERS, N_ITEMS, REG, ALPHA, SIDE_REG = 30, 12, 3.0, 0.4, 0.7


def interactions(n_users=N_USERS, n_items=N_ITEMS, share=0.3) -> sparse.csr_matrix:
    rng = np.random.default_rng(5)
    return sparse.csr_matrix((rng.random((n_users, n_items)) < share).astype(np.float64))


def knowledge(items=True, users=True, masked=False) -> SideInformation:
    rng = np.random.default_rng(6)
    items_given, users_given = rng.normal(size=(N_ITEMS, 5)) + 1, rng.normal(size=(N_USERS, 4)) - 2
    return SideInformation(
        items_given.astype(np.float32) if items else None,
        np.arange(N_ITEMS) % 4 != 1 if masked else None,
        users_given.astype(np.float32) if users else None,
        np.arange(N_USERS) % 3 != 2 if masked else None,
    )


def ease(train, reg=REG) -> np.ndarray:
    return fit(train, reg).item_weights


def stacked(model: ClosedForm) -> np.ndarray:
    return np.vstack([model.item_weights, model.user_weights]).astype(np.float64)


# The reference: the same definitions in another way, a least-squares problem per column.


def unit(vectors, known):
    rows = vectors.astype(np.float64)
    mean = rows[known].mean(axis=0)
    centred = np.where(known[:, None], rows - mean, 0)
    return centred / np.maximum(np.sqrt((centred**2).sum(axis=1)), 1e-9)[:, None]


def regress(inputs, outputs, reg, pull):
    """Ridge towards `pull`, column by column, with the own item taken out of the inputs."""
    n, weights = inputs.shape[1], np.zeros((inputs.shape[1], outputs.shape[1]))
    for j in range(outputs.shape[1]):
        others = np.arange(n) != j
        rows = np.vstack([inputs, np.sqrt(reg) * np.eye(n)])[:, others]
        wanted = np.concatenate([outputs[:, j], np.sqrt(reg) * pull[:, j]])
        weights[others, j] = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return weights


def marks(known, n):
    return np.ones(n, dtype=bool) if known is None else known


def reference(train, alpha, side):
    x = train.toarray()
    size = (x**2).sum() / x.shape[1]
    z = x
    if side.users is not None:
        users = unit(side.users, marks(side.users_known, N_USERS))
        z = np.hstack([x, users * np.sqrt(alpha * size / (users**2).sum(axis=0).mean())])
    no_pull = np.zeros((z.shape[1], N_ITEMS))
    if side.items is None:
        return regress(z, x, REG, no_pull)
    known = marks(side.items_known, N_ITEMS)
    items = unit(side.items, known)
    semantic = regress(items.T, items.T, SIDE_REG, np.zeros((N_ITEMS, N_ITEMS)))
    return regress(z, x, REG, np.vstack([alpha * semantic, no_pull[N_ITEMS:]]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)])
def test_is_the_constrained_optimum(sides, masked):
    train, side = interactions(), knowledge(*sides, masked=masked)
    fitted = stacked(fit(train, REG, ALPHA, side, SIDE_REG))
    assert np.allclose(fitted, reference(train, ALPHA, side), atol=1e-6, rtol=0)
    assert (fitted.diagonal() == 0).all()
    assert np.abs(fitted[:N_ITEMS] - ease(train)).max() > 0.01  # what is known matters


def test_ease_is_the_constrained_optimum():
    train = interactions()
    x = train.toarray()
    assert np.allclose(ease(train), regress(x, x, REG, np.zeros((N_ITEMS, N_ITEMS))), atol=1e-6)


def test_published_objective_of_l3ae_is_stationary():
    """By finite differences of λ(1−α)‖B‖² + λα‖B − S‖² and the rest, in every free weight."""
    train, side = interactions(), knowledge()
    x, items = train.toarray(), unit(side.items, marks(None, N_ITEMS))
    semantic = regress(items.T, items.T, SIDE_REG, np.zeros((N_ITEMS, N_ITEMS)))
    model = fit(train, REG, ALPHA, side, SIDE_REG)
    users = model.user_vectors.astype(np.float64)

    def objective(weights):
        b, c = weights[:N_ITEMS], weights[N_ITEMS:]
        ridge = (1 - ALPHA) * (b**2).sum() + ALPHA * ((b - semantic) ** 2).sum() + (c**2).sum()
        return ((x - x @ b - users @ c) ** 2).sum() + REG * ridge

    best, step = stacked(model), 1e-3
    slopes = np.zeros_like(best)
    for cell in np.ndindex(best.shape):
        up, down = best.copy(), best.copy()
        up[cell] += step
        down[cell] -= step
        slopes[cell] = (objective(up) - objective(down)) / (2 * step)
    held = np.eye(*best.shape, dtype=bool)
    assert np.abs(slopes[~held]).max() < 1e-4
    assert np.abs(slopes[held]).min() > 0.1  # the constraint holds something back


def test_two_items_by_hand():
    # Item 0 has 3 users, item 1 has 2, both have 1; two centred unit vectors are opposite.
    train = sparse.csr_matrix([[1, 1], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    side = SideInformation(items=np.array([[0.0, 4.0], [3.0, 0.0]]))
    assert ease(train, 2.0) == pytest.approx(np.array([[0, 1 / 5], [1 / 4, 0]]))
    weights = fit(train, 2.0, 0.25, side, 0.5).item_weights
    forward, back = (1 - 2 * 0.25 / 1.5) / 5, (1 - 2 * 0.25 / 1.5) / 4
    assert weights == pytest.approx(np.array([[0, forward], [back, 0]]), abs=1e-7)


def test_agrees_with_recbole():
    from recbole.model.general_recommender.ease import EASE

    class Settings(defaultdict[str, object]):
        device = torch.device("cpu")

    class Data:
        def num(self, _):
            return 300

        def inter_matrix(self, form):
            return train.tocoo().asformat(form)

    train = interactions(300, 80, 0.1)
    settings = Settings(lambda: "x", reg_weight=250.0)
    theirs = np.asarray(EASE(settings, Data()).item_similarity)
    assert np.abs(ease(train, 250.0) - theirs).max() < 1e-5
    assert np.abs(theirs).max() > 0.01


def test_no_share_of_knowledge_is_ease_to_the_bit():
    train, side = interactions(), knowledge(masked=True)
    plain = ease(train)
    without = fit(train, REG, 0.0, side)
    assert (without.item_weights == plain).all()
    assert without.user_weights.size == 0
    nobody = SideInformation(
        side.items, np.zeros(N_ITEMS, bool), side.users, np.zeros(N_USERS, bool)
    )
    assert (fit(train, REG, ALPHA, nobody).item_weights == plain).all()
    assert (fit(train, REG, ALPHA).item_weights == plain).all()
    hardly = fit(train, REG, 1e-8, side)
    assert np.allclose(hardly.item_weights, plain, atol=1e-5)


def test_unknown_rows_are_never_read_and_change_nobody():
    train, side = interactions(), knowledge(masked=True)
    items, users = side.items.copy(), side.users.copy()
    items[~side.items_known], users[~side.users_known] = np.nan, 1e9
    model = fit(train, REG, ALPHA, side)
    other = fit(
        train, REG, ALPHA, SideInformation(items, side.items_known, users, side.users_known)
    )
    everyone = np.arange(N_USERS)
    assert (model.scores(everyone) == other.scores(everyone)).all()

    plain = ease(train)
    items_alone = SideInformation(side.items, side.items_known)
    weights = fit(train, REG, ALPHA, items_alone).item_weights
    unknown = ~side.items_known
    assert np.allclose(weights[:, unknown], plain[:, unknown], atol=1e-7)
    assert not np.allclose(weights[:, ~unknown], plain[:, ~unknown], atol=1e-3)


def test_a_user_without_a_profile_is_scored_by_history_alone():
    train, side = interactions(), knowledge(masked=True)
    model = fit(train, REG, ALPHA, side)
    by_history = np.asarray(train @ model.item_weights)
    same = np.isclose(model.scores(np.arange(N_USERS)), by_history, atol=1e-6).all(axis=1)
    assert (same == ~side.users_known).all()


def test_scale_and_offset_of_embeddings_do_not_matter():
    train, side = interactions(), knowledge()
    moved = SideInformation(items=100 * side.items + 7, users=0.01 * side.users - 3)
    ours = fit(train, REG, ALPHA, side).scores(np.arange(N_USERS))
    assert np.allclose(fit(train, REG, ALPHA, moved).scores(np.arange(N_USERS)), ours, atol=1e-4)


def test_embeddings_that_are_all_alike_say_nothing():
    train = interactions()
    rounding = 1e-8 * np.random.default_rng(0).normal(size=(N_ITEMS, 5))
    alike = SideInformation(items=np.array([3.0, -1.0, 0.5, 2.0, 1.0]) + rounding)
    assert np.allclose(fit(train, REG, ALPHA, alike).item_weights, ease(train))


def test_scores_are_float32_and_the_same_in_blocks(monkeypatch):
    model = fit(interactions(), REG, ALPHA, knowledge())
    users = np.array([4, 0, 4, 29, 7, 1, 2])
    whole = model.scores(users)
    assert whole.shape == (7, N_ITEMS)
    assert whole.dtype == np.float32
    expected = (
        interactions()[users] @ model.item_weights + model.user_vectors[users] @ model.user_weights
    )
    assert np.allclose(whole, expected, atol=1e-6)
    monkeypatch.setattr(closed_form, "_BLOCK", 3)
    assert np.allclose(model.scores(users), whole, atol=1e-6)
    assert model.scores(users[:0]).shape == (0, N_ITEMS)


@pytest.mark.parametrize("side", [None, knowledge()])
def test_saved_and_loaded_it_scores_the_same(tmp_path, side):
    model = fit(interactions(), REG, ALPHA, side)
    save_file(model.weights(), tmp_path / "weights.safetensors")
    loaded = ClosedForm.from_weights(load_file(tmp_path / "weights.safetensors"))
    users = np.arange(N_USERS)
    assert (loaded.scores(users) == model.scores(users)).all()
    with pytest.raises(BadInput, match=r"lack 'user_weights'\. Train the model again"):
        ClosedForm.from_weights(
            {key: value for key, value in model.weights().items() if key != "user_weights"}
        )


def tastes(noise=0.6):
    """60 users who each know 2 of the 25 items of one of 6 tastes; 6 more of it are held out."""
    rng = np.random.default_rng(8)
    taste = np.arange(60) % 6
    liked = np.array([t * 25 + rng.permutation(25)[:8] for t in taste])
    pairs = (np.repeat(np.arange(60), 2), liked[:, :2].ravel())
    train = sparse.csr_matrix((np.ones(120), pairs), (60, 150))
    held = HeldOut(np.repeat(np.arange(60), 6), liked[:, 2:].ravel(), 150)
    centres = rng.normal(size=(6, 16))
    items = np.repeat(centres, 25, axis=0) + noise * rng.normal(size=(150, 16))
    return train, held, items, centres[taste] + noise * rng.normal(size=(60, 16))


def ndcg(model: ClosedForm, train, held) -> float:
    scores = model.scores(held.users)
    scores[train[held.users].toarray() > 0] = -np.inf
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    values = ranking_metrics(held.hits(ranked), held.n_relevant, ("ndcg",), (10,))
    return float(values[("ndcg", 10)].mean())


def test_true_knowledge_helps_and_shuffled_does_not():
    train, held, items, users = tastes()
    plain = ndcg(fit(train, 5.0), train, held)
    knowing = ndcg(fit(train, 5.0, 0.5, SideInformation(items)), train, held)
    shuffled = SideInformation(np.random.default_rng(9).permutation(items))
    assert knowing > plain + 0.1
    assert ndcg(fit(train, 5.0, 0.5, shuffled), train, held) < plain + 0.02
    about_users = fit(train, 5.0, 0.5, SideInformation(users=users))
    assert ndcg(about_users, train, held) > plain + 0.1


def test_the_memory_named_is_enough():
    n = 500
    train = interactions(200, n, 0.2)
    vectors = np.random.default_rng(0).normal(size=(n, 8))
    side = SideInformation(vectors, np.arange(n) % 9 > 0)
    tracemalloc.start()
    fit(train, REG, ALPHA, side)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (PEAK_MATRICES - 2) * 8 * n**2 < peak < (PEAK_MATRICES + 0.2) * 8 * n**2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reg_weight": 0.0}, "reg_weight is 0.0. Set it to a number above 0"),
        ({"reg_weight": float("nan")}, "reg_weight is nan"),
        ({"side_reg": -1.0}, "side_reg is -1.0"),
        ({"alpha": 1.5}, "alpha is 1.5. Set it to a number from 0 to 1"),
        (
            {"side": SideInformation(items=np.ones((3, 2)))},
            r"12 items need embeddings of shape \(12, width\) .* not \(3, 2\) and \(12,\)",
        ),
        (
            {"side": SideInformation(users=np.ones((30, 2)), users_known=np.ones(4, bool))},
            r"30 users need .* not \(30, 2\) and \(4,\)",
        ),
        ({"side": SideInformation(users=np.ones((30, 0)))}, r"not \(30, 0\)"),
        (
            {"side": SideInformation(np.diag([1.0] * 7 + [np.inf] * 5), np.arange(12) > 2)},
            "row 7 of the items' embeddings has values that are not finite",
        ),
        ({"train": sparse.csr_matrix((2, 50_000))}, "50000 items need about 80 GB .* 20000 items"),
        ({"train": sparse.csr_matrix(np.ones((4, 2))), "reg_weight": 1e-30}, "too small"),
    ],
)
def test_bad_input_is_named_with_its_fix(changes, message):
    arguments = {"train": interactions(), "reg_weight": REG, "alpha": ALPHA} | changes
    with pytest.raises(BadInput, match=message):
        fit(**arguments)
