"""KAR: two more fields from profiles, in the three models that the arm exists for."""

import numpy as np
import pytest
import torch

from models.config import ARMS, Job, Kar, Pipeline
from models.errors import BadInput
from models.recommenders.comparators.kar import HybridExperts
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.schemas import ITEM, USER
from tests.support.toy_recommender import ITEMS, UNIVERSE, USERS, interactions

WIDTH = 12


def log() -> Log:
    users, items = interactions()[0]
    labels = (np.arange(len(users)) % 3 > 0).astype(np.float32)
    return Log(users, items, labels=labels)


def plain(model: str) -> Recommender:
    return Recommender(model, {"train_batch_size": 64}, log(), UNIVERSE, seed=1)


def fed(model: str, seed: int = 0, without: str | None = None) -> Recommender:
    """A model with embeddings of both sides, of all users but `without`."""
    built, rng = plain(model), np.random.default_rng(seed)
    users = [user for user in USERS if user != without]
    vectors = {
        "users": (users, rng.normal(size=(len(USERS), WIDTH)).astype(np.float32)[: len(users)]),
        "items": (ITEMS, rng.normal(size=(len(ITEMS), WIDTH)).astype(np.float32)),
    }
    aligned = {side: built.align(*given, side) for side, given in vectors.items()}
    built.rebuild_with_features(Kar(hidden=8), aligned)
    return built


def predictions(built: Recommender) -> np.ndarray:
    built.module.eval()
    users, items = built.user_ids(USERS), built.item_ids(ITEMS[:1] * len(USERS))
    return built.predict(torch.from_numpy(users), torch.from_numpy(items)).numpy()


@pytest.mark.parametrize("model", ARMS["kar"].models)
def test_the_adaptor_learns_and_its_knowledge_reaches_the_prediction(model):
    built = fed(model)
    built.module.train()
    built.loss(next(iter(built.batches()))).backward()
    gradients = {
        name: float(parameter.grad.norm())
        for name, parameter in built.module.named_parameters()
        if name.startswith("experts.") and parameter.grad is not None
    }
    assert len(gradients) == len(list(built.module.experts.parameters()))
    assert sum(norm > 0 for norm in gradients.values()) > len(gradients) / 2
    other = fed(model, seed=9)
    other.restore(built.weights())  # the same weights on other embeddings
    assert not np.allclose(predictions(built), predictions(other))


@pytest.mark.parametrize("model", ARMS["kar"].models)
def test_every_field_counts_two_more_and_the_plain_model_stays_as_it_is(model):
    built, before = fed(model), predictions(plain(model))
    assert built.module.num_feature_field == plain(model).module.num_feature_field + 2
    assert np.array_equal(predictions(plain(model)), before)


def test_saved_weights_bring_the_same_predictions_back():
    built, again = fed("DCN"), fed("DCN")
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(0.05)
    again.restore(built.weights())
    assert np.array_equal(predictions(built), predictions(again))
    assert not any("known_" in name for name in built.weights())


def test_a_user_without_a_profile_has_a_row_of_zeros():
    built = fed("DeepFM", without=USERS[3])
    rows = built.module.known_users[built.user_ids(USERS)]
    assert [i for i, row in enumerate(rows) if not row.any()] == [3]


def test_experts_are_shared_or_own_and_weighed_by_a_softmax():
    torch.manual_seed(0)
    experts = HybridExperts(WIDTH, 5, Kar(shared_experts=1, own_experts=1, hidden=4))
    given = torch.randn(3, WIDTH)
    gate = torch.softmax(experts.gates[USER](given), dim=1)
    by_hand = gate[:, :1] * experts.shared[0](given) + gate[:, 1:] * experts.own[USER][0](given)
    torch.testing.assert_close(experts(USER, given), by_hand)
    assert not torch.allclose(experts(ITEM, given), by_hand)


def test_users_and_items_must_be_embedded_alike():
    built = plain("DeepFM")
    users = built.align(USERS, np.ones((len(USERS), 4), np.float32), "users")
    items = built.align(ITEMS, np.ones((len(ITEMS), 6), np.float32), "items")
    with pytest.raises(BadInput, match=r"4 and 6 wide\. Embed both with one text model"):
        built.rebuild_with_features(Kar(), {"users": users, "items": items})


def test_the_arm_exists_for_its_models_alone():
    pipeline = Pipeline.model_validate(
        {
            "experiment": "kar",
            "models": {"DeepFM": {}, "FM": {}},
            "training": {
                "arms": ["baseline", "kar", "kar-shuffled"],
                "seeds": [1],
                "valid_metric": "auc",
            },
            "evaluation": {"like_from": 4, "metrics": ["auc"], "primary": "auc"},
        }
    )
    jobs: list[Job] = pipeline.jobs({"DeepFM": {}, "FM": {}})
    assert [(job.model, job.arm) for job in jobs] == [
        ("DeepFM", "baseline"),
        ("DeepFM", "kar"),
        ("DeepFM", "kar-shuffled"),
        ("FM", "baseline"),
    ]
    assert jobs[1].sides == jobs[2].sides == ("users", "items")
