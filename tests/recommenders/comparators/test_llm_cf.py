"""LLM-CF: which earlier rows are retrieved, what the decoder sees of them, and what it learns."""

import numpy as np
import pytest
import torch

from models.config import ARMS, Job, LlmCf, Pipeline, Search
from models.errors import BadInput
from models.experiments.search import space_of
from models.recommenders.batches import ROW, Pairs
from models.recommenders.comparators.llm_cf import Decoder, Examples
from models.recommenders.recbole_adapter import Log
from models.recommenders.recommender import Recommender
from models.schemas import ITEM, USER
from tasks.training.tap_points import tap_points
from tests.support.toy_recommender import ITEMS, UNIVERSE, USERS, interactions

WIDTH = 12
WITHOUT = LlmCf(thoughts=False)
MODELS = ARMS["llm-cf"].models

# Eight rows by hand: films 1, 2 of one kind, 3, 4 of another; ann (1) and bob (2) like the first
# kind, cat (3) the second.
ANN, BOB, CAT = 1, 2, 3
ROWS = [  # user, item, liked, time
    (ANN, 1, 1, 10),
    (ANN, 3, 0, 20),
    (CAT, 3, 1, 30),
    (CAT, 1, 0, 40),
    (BOB, 1, 1, 50),
    (BOB, 4, 0, 60),
    (BOB, 2, 1, 70),
    (ANN, 2, 1, 80),
]
TEXTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])


def by_hand(order=range(8), times=True, **settings):
    """The eight rows in some order."""
    rows = [ROWS[place] for place in order]
    users, items, labels, at = (np.array(column) for column in zip(*rows, strict=True))
    pairs = Pairs(torch.from_numpy(users), torch.from_numpy(items), n_users=4, n_items=5)
    when = at if times else None
    return Examples(pairs, labels.astype(np.float32), when, TEXTS, LlmCf(**settings), seed=1)


def retrieved(examples, row):
    return examples.of_rows[row].tolist()


def test_the_nearest_earlier_rows_are_retrieved_two_liked_and_two_not():
    # Bob's last row: he had liked film 1, and film 2 is asked about. Ann's and bob's first rows
    # came before any like of theirs, so that their items alone count (near: film 1). Cat's row 3
    # has another taste but a near film; ann's row 1 the same taste and a far film, bob's row 5 too.
    near, half = torch.nn.functional.normalize(TEXTS, dim=1), 0.5
    film = (near[2] @ near.T).tolist()
    by_row = {
        0: half * film[1],
        4: half * film[1],
        2: half * film[3],
        1: half * (1 + film[3]),
        5: half * (1 + film[4]),
        3: half * film[1],
    }
    liked = sorted((0, 2, 4), key=lambda row: -by_row[row])[:2]
    other = sorted((1, 3, 5), key=lambda row: -by_row[row])[:2]
    assert (set(liked), set(other)) == ({0, 4}, {1, 5})
    found = retrieved(by_hand(), 6)
    assert set(found) == {0, 4, 1, 5}
    assert [by_row[row] for row in found] == sorted(by_row[row] for row in found)


@pytest.mark.parametrize("times", [True, False])
def test_neither_the_row_nor_a_later_one_is_retrieved(times):
    examples = by_hand(times=times)
    for row in range(8):
        assert all(-1 <= other < row for other in retrieved(examples, row))
    assert retrieved(examples, 0) == [-1] * 4
    assert sorted(retrieved(examples, 2)) == [-1, -1, 0, 1]  # as many as there are
    assert examples.labels[-1] == 2  # the place of none


def test_times_decide_and_not_the_order_of_the_log():
    order = [6, 2, 7, 0, 4, 1, 5, 3]
    alike = {**dict(enumerate(range(8))), -1: -1, 4: 0}  # ann's and bob's first rows are
    for place, row in enumerate(order):
        there = [order[found] if found >= 0 else -1 for found in retrieved(by_hand(order), place)]
        here = retrieved(by_hand(), row)
        assert sorted(map(alike.get, there)) == sorted(map(alike.get, here))


def test_rows_of_one_moment_do_not_see_each_other():
    rows = [(user, item, liked, 5) for user, item, liked, _ in ROWS]
    users, items, labels, at = (torch.tensor(column) for column in zip(*rows, strict=True))
    log = labels.float().numpy(), at.numpy()
    examples = Examples(Pairs(users, items, 4, 5), *log, TEXTS, LlmCf(), seed=1)
    assert (examples.of_rows == -1).all()
    assert not examples._before.any()


def test_with_the_leak_a_row_finds_itself_first_and_still_no_later_one():
    leaky = by_hand(leak=True)
    for row in range(8):
        found = retrieved(leaky, row)
        assert max(found) == row
        assert found[-1] == row or row in (0, 2, 4, 7)  # another row is as near
    asked = torch.tensor([ANN]), torch.tensor([4])
    assert torch.equal(leaky.of_pairs(*asked), by_hand().of_pairs(*asked))


def test_a_prediction_comes_after_all_rows_and_retrieves_training_rows_alone():
    examples = by_hand()
    found = examples.of_pairs(torch.tensor([ANN, CAT]), torch.tensor([2, 4]))
    assert found.shape == (2, 4)
    assert ((found >= 0) & (found < 8)).all()
    assert examples.labels[found].sum(dim=1).tolist() == [2, 2]
    assert 7 in found[0]  # her own last row: the same film
    assert examples.of_pairs(torch.tensor([ANN, CAT]), torch.tensor([2, 4])) is found


def test_only_rows_of_the_pool_are_retrieved():
    found = by_hand(pool=3).of_rows
    assert len(found[found >= 0].unique()) <= 3
    alone = by_hand(pool=1).of_rows  # one of the labels has no row at all
    assert alone.shape == (8, 4)


def log() -> Log:
    users, items = interactions()[0]
    labels = (np.arange(len(users)) % 3 > 0).astype(np.float32)
    return Log(users, items, labels=labels)


def fed(model: str, settings: LlmCf = WITHOUT, texts: int = 0, seed: int = 1) -> Recommender:
    """A model with examples, and random texts of all but the last user."""
    built = Recommender(model, {"train_batch_size": 64}, log(), UNIVERSE, seed)
    rng = np.random.default_rng(texts)
    vectors = {
        "users": (USERS[:-1], rng.normal(size=(len(USERS) - 1, WIDTH)).astype(np.float32)),
        "items": (ITEMS, rng.normal(size=(len(ITEMS), WIDTH + 2)).astype(np.float32)),
    }
    aligned = {side: built.align(*given, side) for side, given in vectors.items()}
    built.rebuild_with_features(settings, aligned)
    return built


def predictions(built: Recommender) -> np.ndarray:
    built.module.eval()
    users, items = built.user_ids(USERS), built.item_ids(ITEMS[:1] * len(USERS))
    return built.predict(torch.from_numpy(users), torch.from_numpy(items)).numpy()


def trained(built: Recommender, epochs: int = 5) -> list[float]:
    optimizer = torch.optim.Adam(built.module.parameters(), lr=0.01)
    built.module.train()
    torch.manual_seed(built.seed)  # of the dropout, as `fit` does
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in built.batches():
            optimizer.zero_grad()
            loss = built.loss(batch)
            loss.backward()
            optimizer.step()
            total += float(loss)
        losses.append(total)
    return losses


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("settings", [LlmCf(), WITHOUT])
def test_the_loss_falls_and_the_deep_layers_alone_are_wider(model, settings):
    built = fed(model, settings)
    plain = Recommender(model, {"train_batch_size": 64}, log(), UNIVERSE, 1)
    ours, theirs = built.weights(), plain.weights()
    apart = {name for name in theirs if ours[name].shape != theirs[name].shape}
    assert apart == {"mlp_layers.mlp_layers.1.weight"}
    assert {name.partition(".")[0] for name in ours.keys() - theirs.keys()} == {"decoder"}
    losses = trained(built)
    assert losses[-1] < losses[0]
    moved = {name for name, value in built.weights().items() if not torch.equal(value, ours[name])}
    assert {name for name in ours if name.startswith("decoder.")} <= moved


def decoder_and_input():
    """A decoder with texts of four users, the first one unknown, and six items; two sequences."""
    torch.manual_seed(0)
    texts = torch.randn(4, 5), torch.randn(6, 7)
    texts[0][0] = 0
    ids = torch.tensor([[1, 2, 3, 0], [3, 1, 0, 2]]), torch.tensor([[1, 2, 3, 4], [5, 4, 3, 2]])
    features, labels = torch.randn(2, 5, 6), torch.ones(2, 4).long()
    return Decoder(6, texts, LlmCf()), texts, features, ids, labels


def test_a_later_token_does_not_change_an_earlier_state():
    decoder, _, features, ids, labels = decoder_and_input()
    before = decoder(features, ids, labels)
    assert before.shape == (2, 13, 32)
    for token, change in (
        (12, lambda: features[:, 4].add_(1)),
        (8, lambda: labels[:, 2].zero_()),
        (7, lambda: ids[1][:, 2].fill_(5)),
        (6, lambda: features[:, 2].add_(1)),
    ):
        change()
        after = decoder(features, ids, labels)
        torch.testing.assert_close(after[:, :token], before[:, :token])
        assert not torch.isclose(after[:, token:], before[:, token:]).all(dim=-1).any()
        before = after


def test_the_cosine_loss_reaches_the_thoughts_map_and_leaves_unknown_ones_out():
    decoder, texts, features, ids, labels = decoder_and_input()
    states = decoder(features, ids, labels)
    apart = decoder.apart(states, ids)
    apart.backward()
    for layer in (*decoder.thought, *decoder.rebuilt, decoder.features):
        assert layer.weight.grad.abs().sum() > 0
    said = states[:, [0, 3, 6, 9]]
    cosines = [
        torch.cosine_similarity(layer(said)[row, place], half[rows[row, place]], dim=0)
        for layer, half, rows in zip(decoder.rebuilt, texts, ids, strict=True)
        for row in range(2)
        for place in range(4)
        if half[rows[row, place]].any()
    ]
    assert len(cosines) == 14
    torch.testing.assert_close(apart, 1 - torch.stack(cosines).mean())
    nobody = torch.zeros_like(ids[0])
    items_alone = decoder.apart(states, (nobody, ids[1]))
    torch.testing.assert_close(items_alone, 1 - torch.stack(cosines[6:]).mean())


def test_texts_reach_the_prediction_as_thoughts():
    built, other = fed("DeepFM", LlmCf()), fed("DeepFM", LlmCf(), texts=9)
    other.restore(built.weights())
    assert not np.allclose(predictions(built), predictions(other))


@pytest.mark.parametrize("settings", [LlmCf(), WITHOUT])
def test_a_seed_decides_everything(settings):
    first, again, other = (fed("DCN", settings, seed=seed) for seed in (1, 1, 2))
    losses = [trained(built, epochs=2) for built in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert np.array_equal(predictions(first), predictions(again))


@pytest.mark.parametrize("model", MODELS)
def test_saved_weights_bring_the_same_predictions_back(model):
    built, again = fed(model, LlmCf()), fed(model, LlmCf())
    trained(built, epochs=1)
    again.restore(built.weights())
    assert np.array_equal(predictions(built), predictions(again))


def test_held_out_pairs_are_never_retrieved():
    built = fed("DeepFM", LlmCf(pool=10**6))
    (users, items), held = interactions()
    training = set(zip(users, items, strict=True))
    assert not training & set(zip(*held, strict=True))
    asked = [
        torch.from_numpy(f(p)) for f, p in ((built.user_ids, held[0]), (built.item_ids, held[1]))
    ]
    spied = built.module.concat_embed_input_fields
    seen = []
    built.module.concat_embed_input_fields = lambda columns: seen.append(columns) or spied(columns)
    built.module.eval()
    built.predict(*asked)
    examples = seen[0]  # what the decoder reads: four examples, then the pair itself
    pairs = [examples[field].view(-1, 5)[:, :4].flatten() for field in (USER, ITEM)]
    read = zip(built.tokens["user_id"][pairs[0]], built.tokens["item_id"][pairs[1]], strict=True)
    assert set(read) <= training
    batch = next(iter(built.batches()))
    assert torch.equal(torch.from_numpy(built.train_users)[batch[ROW]], batch[USER])


def asked_for(models: dict, **evaluation: object) -> Pipeline:
    likes = {"like_from": 4, "metrics": ["auc"], "primary": "auc"}
    return Pipeline.model_validate(
        {
            "experiment": "e",
            "models": models,
            "training": {
                "arms": ["baseline", "llm-cf", "llm-cf-no-thoughts", "kar"],
                "seeds": [1],
                "valid_metric": "auc",
            },
            "evaluation": likes | evaluation,
            "llm_cf": {"pool": 50},
        }
    )


def test_arms_differ_in_their_settings_and_exist_for_click_models_alone():
    pipeline = asked_for({"DeepFM": {}, "FM": {}})
    jobs: list[Job] = pipeline.jobs({"DeepFM": {}, "FM": {}})
    assert [(job.model, job.kar) for job in jobs] == [
        ("DeepFM", None),
        ("DeepFM", LlmCf(pool=50)),
        ("DeepFM", LlmCf(pool=50, thoughts=False)),
        ("DeepFM", pipeline.kar),
        ("FM", None),
    ]
    assert jobs[1].sides == ("users", "items")
    assert [Job.model_validate_json(job.model_dump_json()) for job in jobs] == jobs


def test_its_settings_are_searched_for_its_arms_alone():
    search = Search.model_validate({"space": {"llm_cf.width": {"choices": [16, 32]}}})
    searched = {arm for arm in ARMS if space_of(search, "DeepFM", arm)}
    assert searched == {"llm-cf", "llm-cf-shuffled", "llm-cf-no-thoughts"}


def test_a_model_or_a_task_without_likes_is_refused_in_a_sentence():
    with pytest.raises(BadInput, match=r"llm-cf exists for DeepFM, DCN, AutoInt, and none of them"):
        tap_points(asked_for({"FM": {}}))
    ranking = asked_for({"DeepFM": {}}).model_dump(exclude={"evaluation"})
    ranking["training"]["valid_metric"] = "ndcg@10"
    with pytest.raises(BadInput, match=r"nothing says what is liked\. Set evaluation\.like_from"):
        tap_points(Pipeline.model_validate(ranking))
