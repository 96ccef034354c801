"""Comparators keep an own model's contract, and text helps those that take it."""

import numpy as np
import pytest
import torch

from models.config import Model
from models.recommenders.batches import Pairs
from models.recommenders.comparators.graph import adjacency, history_means, info_nce
from models.recommenders.registry import entry
from models.recommenders.tap_probe import probe
from models.training.model_contract import promises
from tests.support.toy_recommender import EVERYBODY, N_ITEMS, recommender, targets, train, wrap

ALPHA_REC = "models.recommenders.comparators.alpha_rec:AlphaRec"
TEXT_FEATURES = "models.recommenders.comparators.text_features:TextFeatures"
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
            [int(t[1:]) for t in ids] for ids in (built.user_tokens[1:], built.item_tokens[1:])
        )
        same = torch.tensor(users)[:, None] % 2 == torch.tensor(items)[None] // (N_ITEMS // 2)
        values = scores[:, 1:]
        return float((values[same].mean() - values[~same].mean()) / values.std())

    assert apart(informed(name)) > apart(recommender(name, learning_rate=0.01)) + 0.1


@pytest.mark.parametrize("name", WITH_TEXT)
def test_alpha_zero_is_the_baseline_to_the_bit(name):
    plain, silent = recommender(name), informed(name, alpha=0.0)
    assert torch.equal(plain.scores(EVERYBODY), silent.scores(EVERYBODY))


@pytest.mark.parametrize("name", WITH_TEXT)
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
