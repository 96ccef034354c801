"""Comparators keep an own model's contract, and text helps those that take it."""

import numpy as np
import pytest
import torch

from models.config import Model
from models.publishing.foretelling import foretold
from models.recommenders.batches import Pairs
from models.recommenders.closed_form import SideInformation
from models.recommenders.comparators.content_neighbours import ContentNeighbours
from models.recommenders.comparators.foretold import Foretold
from models.recommenders.comparators.graph import adjacency, history_means, info_nce
from models.recommenders.registry import entry
from models.recommenders.tap_probe import probe
from models.training.model_contract import promises
from tests.support.toy_recommender import EVERYBODY, N_ITEMS, recommender, targets, train, wrap

ALPHA_REC = "models.recommenders.comparators.alpha_rec:AlphaRec"
TEXT_FEATURES = "models.recommenders.comparators.text_features:TextFeatures"
NEIGHBOURS = "models.recommenders.comparators.content_neighbours:ContentNeighbours"
FORETOLD = "models.recommenders.comparators.foretold:Foretold"
XSIMGCL = "models.recommenders.comparators.xsimgcl:XSimGCL"
WITH_TEXT = [ALPHA_REC, TEXT_FEATURES]


@pytest.mark.parametrize("name", [*WITH_TEXT, XSIMGCL])
def test_the_contract_holds(name):
    broken = [promise for promise, holds, _ in promises(name, Model()) if not holds]
    # A mean of random vectors knows its items by heart before any training.
    allowed = {"training lifts the training items above the others"} if name == ALPHA_REC else {}
    assert {*broken} <= {*allowed}


def informed(name, alpha=1.0, width=24, **hyperparameters):
    built = recommender(name, learning_rate=0.01, **hyperparameters)
    rows = built.align(*targets("items", width), "items")
    built.take_embeddings(alpha, {"items": rows})
    return built


@pytest.mark.parametrize("name", WITH_TEXT)
def test_text_enters_whole_and_tells_the_tastes_apart(name):
    assert entry(name).takes_embeddings
    assert probe(name, {}).tap is None

    def apart(built) -> float:
        train(built, wrap(built, None), epochs=6)
        built.module.eval()
        with torch.no_grad():
            scores = built.scores(EVERYBODY)
        users, items = (
            [int(t[1:]) for t in built.tokens[column][1:]] for column in ("user_id", "item_id")
        )
        same = torch.tensor(users)[:, None] % 2 == torch.tensor(items)[None] // (N_ITEMS // 2)
        values = scores[:, 1:]
        return float((values[same].mean() - values[~same].mean()) / values.std())

    assert apart(informed(name)) > apart(recommender(name, learning_rate=0.01)) + 0.1


@pytest.mark.parametrize("name", [*WITH_TEXT, NEIGHBOURS, FORETOLD])
def test_alpha_zero_is_the_baseline_to_the_bit(name):
    plain, silent = recommender(name), informed(name, alpha=0.0)
    assert torch.equal(plain.scores(EVERYBODY), silent.scores(EVERYBODY))


@pytest.mark.parametrize("name", [*WITH_TEXT, NEIGHBOURS, FORETOLD])
def test_weights_of_texts_of_another_width_are_loaded(name):
    built = informed(name, width=17)
    train(built, wrap(built, None), epochs=2)
    loaded = recommender(name)
    loaded.restore(built.weights())
    built.module.eval()
    assert torch.equal(loaded.scores(EVERYBODY), built.scores(EVERYBODY))


def test_an_item_without_a_text_is_scored_by_nothing_else():
    built = recommender(ALPHA_REC)
    names, vectors = targets("items", 8)
    built.take_embeddings(1.0, {"items": built.align(names[1:], vectors[1:], "items")})
    place = int(built.item_ids(names[:1])[0])
    assert torch.equal(built.module.item_texts[place], torch.zeros(8))


def test_graph_parts_by_hand():
    data = Pairs(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 2]), 3, 3)
    found = adjacency(data).to_dense()
    expected = np.zeros((6, 6))
    for user, item, value in ((1, 1, 2**-0.5), (1, 2, 0.5), (2, 2, 2**-0.5)):
        expected[user, 3 + item] = expected[3 + item, user] = value
    assert np.allclose(found, expected)
    vectors = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    means = history_means(data, vectors)
    assert torch.equal(means, torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 4.0]]))
    loss = info_nce(torch.eye(2), torch.eye(2), 0.5)
    assert float(loss) == pytest.approx(np.log(1 + np.exp(-2)))


def neighbours(**settings):
    """Items 1 to 3 and users 1 and 2: both had item 1, the second item 2 as well, nobody item 3."""
    data = Pairs(torch.tensor([1, 2, 2]), torch.tensor([1, 1, 2]), 3, 4)
    return ContentNeighbours(data, **settings)


def test_neighbours_by_hand():
    built = neighbours(neighbours=3, power=2.0, normalise=0.0)
    together = 1 / np.sqrt(2)  # two had item 1, one item 2, one both
    expected = torch.tensor([[0, 0, together**2, 0], [0, together**2, together**2, 0]])
    assert torch.allclose(built.scores(torch.tensor([1, 2])), expected.float())
    texts = np.array([[0, 0], [1, 0], [-1, 0], [1, 0.0]])  # centred already, padding aside
    known = np.array([False, True, True, True])
    built.take_prior(1.0, SideInformation(items=texts, items_known=known))
    assert built.scores(torch.tensor([1]))[0, 3] == pytest.approx(1.0)  # the new item, like 1
    assert built.scores(torch.tensor([1]))[0, 2] == 0  # unlike: no weight below 0
    assert not built.weights[3].any()  # a new item is nobody's neighbour
    whole = neighbours(neighbours=3, power=1.0, normalise=1.0)
    assert torch.allclose(whole.weights.sum(dim=0)[1:3], torch.ones(2))


def test_only_the_closest_neighbours_count():
    rng = np.random.default_rng(1)
    pairs = [(user, item) for user in range(1, 30) for item in range(1, 20) if rng.random() < 0.4]
    data = Pairs(*torch.tensor(pairs).T, 30, 20)
    texts = SideInformation(items=rng.normal(size=(20, 8)))
    kept, every = (ContentNeighbours(data, n, normalise=0.0) for n in (4, 20))
    for built in (kept, every):
        built.take_prior(1.0, texts)
    counts = (every.weights > 0).sum(dim=0)
    assert counts.max() > 4
    assert torch.equal((kept.weights > 0).sum(dim=0), counts.clamp(max=4))
    assert torch.equal(kept.weights.max(dim=0).values, every.weights.max(dim=0).values)


def test_new_items_are_foretold_as_nightly_runs_do():
    rng = np.random.default_rng(2)
    pairs = [(user, item) for user in range(1, 30) for item in range(1, 17) if rng.random() < 0.4]
    data, everybody = Pairs(*torch.tensor(pairs).T, 30, 20), torch.arange(1, 30)
    texts, known = rng.normal(size=(20, 6)), np.arange(20) > 0
    built = Foretold(data, ridge=10.0)
    plain = built.scores(everybody)
    assert torch.allclose(plain[:, 17], plain[:, 1:17].mean(dim=1), atol=1e-6)
    built.take_prior(1.0, SideInformation(items=texts, items_known=known))
    made = foretold(texts.astype(np.float32), known, np.arange(1, 17), np.arange(17, 20))
    assert torch.equal(built.scores(everybody)[:, 1:17], plain[:, 1:17])
    theirs = plain[:, made.known] @ torch.from_numpy(made.weights).T
    assert torch.allclose(built.scores(everybody)[:, made.rows], theirs, atol=1e-5)
    built.take_prior(1.0, SideInformation(items=texts, items_known=known & (np.arange(20) != 17)))
    assert torch.allclose(built.scores(everybody)[:, 17], plain[:, 17], atol=1e-6)
