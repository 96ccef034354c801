"""What texts foretell of users and items that a model has not learnt of."""

import numpy as np
import torch

from models.publishing.foretelling import foretold
from models.recommenders.closed_form import unit_vectors
from models.recommenders.ials import Prior


def texts(n: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)


def test_it_is_the_prior_of_ials():
    """With one λ for all, iALS' own prior foretells the same, up to its mean."""
    embeddings, described = texts(40), np.ones(40, bool)
    described[0] = False  # padding
    learnt, wanted = np.arange(1, 30), np.arange(30, 40)
    vectors = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    vectors[1:30] -= vectors[1:30].mean(axis=0)
    found = foretold(embeddings, described, learnt, wanted)
    own, _ = unit_vectors("x", "items", embeddings, described, 40)
    own -= own[1:30].mean(axis=0)
    taught = np.isin(np.arange(40), learnt)[:, None]
    prior = Prior(1.0, np.where(taught, own, 0), torch.ones(40), 10.0)
    _, fitted = prior.foretold(torch.from_numpy(np.where(taught, vectors, 0)))
    expected = own[30:] @ fitted.numpy()
    np.testing.assert_allclose(found.weights @ vectors[found.known], expected, atol=1e-5)


def test_one_map_serves_vectors_and_scores():
    embeddings, described = texts(30), np.ones(30, bool)
    found = foretold(embeddings, described, np.arange(1, 20), np.arange(20, 30))
    users, items = texts(30, 4), texts(15, 4)
    of_vectors = (found.weights @ users[found.known]) @ items.T
    of_scores = found.weights @ (users @ items.T)[found.known]
    np.testing.assert_allclose(of_vectors, of_scores, atol=1e-5)


def test_without_texts_nothing_is_foretold():
    embeddings, nobody = texts(10), np.zeros(10, bool)
    assert foretold(embeddings, nobody, np.arange(1, 5), np.arange(5, 10)) is None
    some = nobody.copy()
    some[[1, 2, 7]] = True
    found = foretold(embeddings, some, np.arange(1, 5), np.arange(5, 10))
    assert (found.rows.tolist(), found.known.tolist()) == ([7], [1, 2])
    assert np.allclose(found.weights.sum(), 1)
