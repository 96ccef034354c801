"""AUC and LogLoss: by hand, against scikit-learn, and as values per user."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from models.config import Evaluation, Pipeline
from models.errors import BadInput
from models.evaluation.click_metrics import auc, log_losses, per_user
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.schemas import INTERACTIONS
from models.statistics.paired_comparison import compare
from models.training.validation import Clicks
from tasks.dataset.outputs import Splits
from tasks.dataset.requirements import require_likes
from tasks.storage.artifacts import write_parquet
from tasks.training.tap_points import tap_points
from tests.support.toy_recommender import UNIVERSE, interactions


def drawn(seed: int, n: int = 400, n_users: int = 23):
    """Users, labels and scores with ties, better than chance."""
    rng = np.random.default_rng(seed)
    users = np.concatenate((np.arange(n_users), rng.integers(0, n_users, n - n_users)))
    labels = rng.random(n) < 0.4
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), 2)
    return users, labels, scores


def test_auc_counts_pairs_and_ties_count_half():
    labels = np.array([True, False, True, False])
    # Of four pairs .9 > .5, .9 > .2 and .5 > .2 are right, and .5 = .5 is a tie.
    assert auc(labels, np.array([0.9, 0.5, 0.5, 0.2])) == pytest.approx(3.5 / 4)


def test_logloss_is_the_cross_entropy_and_stays_finite():
    losses = log_losses(np.array([True, False, True]), np.array([0.8, 0.25, 0.0]))
    assert losses[:2] == pytest.approx([-np.log(0.8), -np.log(0.75)])
    assert losses[2] == pytest.approx(-np.log(1e-7))


@pytest.mark.parametrize("seed", [0, 1])
def test_both_agree_with_scikit_learn(seed):
    _, labels, scores = drawn(seed)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    inside = np.clip(scores, 0.01, 0.99)
    assert log_losses(labels, inside).mean() == pytest.approx(log_loss(labels, inside))


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_values_per_user_have_the_metric_as_their_mean(metric):
    users, labels, scores = drawn(3)
    scores = np.clip(scores, 0.01, 0.99)
    whole = {"auc": auc(labels, scores), "logloss": log_losses(labels, scores).mean()}
    values = per_user(metric, users, labels, scores)
    assert len(values) == 23
    assert values.mean() == pytest.approx(whole[metric])


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_their_spread_is_that_of_the_metric_under_another_choice_of_users(metric):
    users, labels, scores = drawn(4, n=3000, n_users=120)
    scores = np.clip(scores, 0.01, 0.99)
    values = per_user(metric, users, labels, scores)
    rng, redrawn = np.random.default_rng(5), []
    rows_of = [np.flatnonzero(users == user) for user in range(120)]
    for _ in range(400):
        rows = np.concatenate([rows_of[user] for user in rng.integers(0, 120, 120)])
        of_rows = auc(labels[rows], scores[rows])
        if metric == "logloss":
            of_rows = float(log_losses(labels[rows], scores[rows]).mean())
        redrawn.append(of_rows)
    assert values.std(ddof=1) / np.sqrt(120) == pytest.approx(np.std(redrawn), rel=0.15)


def test_less_is_better_for_a_loss():
    rng = np.random.default_rng(6)
    baseline = rng.normal(0.6, 0.1, (3, 200))
    arm = baseline - 0.05 + rng.normal(0, 0.01, baseline.shape)
    saved = compare(arm, baseline, less_is_better=True)
    assert saved.effect_size > 0
    assert saved.gain_percent == pytest.approx(100 * 0.05 / 0.6, rel=0.1)
    assert saved.difference == pytest.approx(-0.05, abs=0.005)
    assert compare(arm, baseline).effect_size < 0


def trained_pairs(labels: np.ndarray) -> Clicks:
    users, items = interactions()[0]
    log = Log(users, items, labels=labels.astype(np.float32))
    built = Recommender("DeepFM", {"train_batch_size": 64}, log, UNIVERSE, seed=1)
    return built, Clicks.from_pairs(built, users, items, labels)


def test_a_model_learns_the_labels_rather_than_sampled_negatives():
    labels = np.random.default_rng(7).random(len(interactions()[0][0])) < 0.5
    built, clicks = trained_pairs(labels)
    batch = next(iter(built.batches()))
    assert set(batch["label"].tolist()) == {0.0, 1.0}
    before = clicks.score(built, "logloss")
    optimizer = torch.optim.Adam(built.module.parameters(), lr=0.01)
    built.module.train()
    for _ in range(20):
        for batch in built.batches():
            optimizer.zero_grad()
            built.loss(batch).backward()
            optimizer.step()
    assert clicks.score(built, "logloss") > before  # its sign is turned: more is better
    assert clicks.score(built, "auc") > 0.8


def test_users_without_training_interactions_are_left_out():
    users, items = interactions()[0]
    log = Log(users[7:], items[7:], labels=np.ones(len(users) - 7, np.float32))
    built = Recommender("DeepFM", {}, log, UNIVERSE, seed=1)
    clicks = Clicks.from_pairs(built, users[:8], items[:8], np.ones(8, bool))
    assert [built.tokens["user_id"][user] for user in clicks.users] == [users[7]]


@pytest.mark.parametrize(("liked", "kind"), [(True, "likes"), (False, "dislikes")])
def test_a_part_of_one_kind_is_refused(liked, kind):
    labels = np.full(len(interactions()[0][0]), liked)
    built, clicks = trained_pairs(labels)
    with pytest.raises(BadInput, match=rf"evaluation.like_from: the valid part holds {kind} only"):
        clicks.score(built, "auc")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["auc"], "primary": "auc"}, "auc need like_from"),
        ({"like_from": 4}, "with like_from, likes are predicted and nothing is ranked"),
        ({"like_from": 4, "metrics": ["auc", "ndcg"]}, "set metrics to"),
    ],
)
def test_metrics_must_fit_the_task(settings, message):
    with pytest.raises(ValueError, match=message):
        Evaluation.model_validate(settings)


def test_early_stopping_must_be_on_a_metric_that_is_computed():
    settings = {
        "experiment": "clicks",
        "models": {"DeepFM": {}},
        "evaluation": {"like_from": 4, "metrics": ["auc"], "primary": "auc"},
    }
    with pytest.raises(ValueError, match=r"training.valid_metric is ndcg@10"):
        Pipeline.model_validate(settings)
    settings["training"] = {"valid_metric": "auc"}
    assert Pipeline.model_validate(settings).evaluation.columns() == [("auc", None)]


def parts(ratings: dict[str, list[float | None]]) -> Splits:
    """A split whose parts have these ratings."""
    tables = {
        name: pa.table(
            {
                "user_id": [f"u{n}" for n in range(len(values))],
                "item_id": ["i"] * len(values),
                "rating": pa.array(values, pa.float32()),
                "timestamp": pa.nulls(len(values), pa.int64()),
            },
            schema=INTERACTIONS,
        )
        for name, values in ratings.items()
    }
    return Splits(**{name: write_parquet("split", table) for name, table in tables.items()})


def likes_of(models: dict[str, dict], arms: tuple[str, ...] = ("baseline",)) -> Pipeline:
    return Pipeline.model_validate(
        {
            "experiment": "likes",
            "models": models,
            "training": {"arms": arms, "valid_metric": "auc"},
            "evaluation": {"like_from": 4, "metrics": ["auc"], "primary": "auc"},
        }
    )


@pytest.mark.parametrize(
    ("part", "ratings", "message"),
    [
        ("train", [5, None, 3, None], "2 of 4 interactions of the train part have no rating"),
        ("valid", [5, 4], "the valid part holds likes only"),
        ("test", [1, 3.9], "the test part holds dislikes only"),
    ],
)
def test_ratings_that_tell_nothing_stop_before_anything_is_paid(data_dir, part, ratings, message):
    assert data_dir
    good = {"train": [5, 1], "valid": [4, 3], "test": [5, 2]}
    require_likes(likes_of({"DCN": {}}), parts(good))
    with pytest.raises(BadInput, match=message):
        require_likes(likes_of({"DCN": {}}), parts(good | {part: ratings}))


def test_models_must_predict_likes_and_kar_needs_one_of_its_own():
    with pytest.raises(BadInput, match="models: BPR, Pop rank but predict no likes"):
        tap_points(likes_of({"BPR": {}, "DCN": {}, "Pop": {}}))
    with pytest.raises(BadInput, match="kar exists for DeepFM, DCN, AutoInt, and none of them"):
        tap_points(likes_of({"FM": {}}, ("baseline", "kar")))
    assert set(tap_points(likes_of({"DCN": {}, "FM": {}}, ("baseline", "kar")))) == {"DCN", "FM"}
