"""What replaces RecBole's arithmetic gives RecBole's results."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix

from models.recommenders import recbole_adapter, speedups
from models.recommenders.speedups import Dropout, SparseInput, normalised_adjacency, speed_up
from tests.support.toy_recommender import recommender


def loss_and_gradients(built, batch):
    torch.manual_seed(3)
    built.module.train()
    built.module.zero_grad()
    loss = built.loss(batch).sum()
    loss.backward()
    gradients = (parameter.grad for parameter in built.module.parameters())
    return [loss.detach(), *(each.clone() for each in gradients if each is not None)]


def assert_close(recboles, ours):
    for theirs, own in zip(recboles, ours, strict=True):
        rounding = 1e-6 * float(theirs.abs().max())
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("negatives", [1, 3])
def test_loss_and_gradients_are_recboles(negatives):
    built = recommender("SimpleX", train_neg_sample_args={"sample_num": negatives})
    vars(built.module).pop("calculate_loss", None)  # RecBole's own
    batch = next(iter(built.batches()))
    before = loss_and_gradients(built, batch)
    speed_up("SimpleX", built.module)
    assert_close(before, loss_and_gradients(built, batch))


@pytest.mark.parametrize("negatives", [1, 3])
def test_loss_and_gradients_on_the_large_graph_are_recboles(negatives, monkeypatch):
    chosen = {"train_neg_sample_args": {"sample_num": negatives}}
    built = recommender("LightGCN", **chosen)
    batch = next(iter(built.batches()))
    ours = loss_and_gradients(built, batch)
    scores = built.scores(torch.tensor([1, 2, 3]))
    monkeypatch.setattr(recbole_adapter, "large_graph", lambda model: model)
    plain = recommender("LightGCN", **chosen)
    assert plain.module.norm_adj_matrix.layout is torch.sparse_coo
    assert_close(loss_and_gradients(plain, batch), ours)
    assert_close([plain.scores(torch.tensor([1, 2, 3]))], [scores])


def test_an_interaction_given_twice_is_one_edge():
    rows, columns = np.array([1, 1, 2]), np.array([1, 1, 1])
    pairs = coo_matrix((np.ones(3, np.float32), (rows, columns)), (3, 2))
    weights = normalised_adjacency(pairs).to_dense()
    assert weights[1, 4] == weights[4, 1] == pytest.approx(0.5**0.5)
    assert int((weights > 0).sum()) == 4


def test_autoencoders_read_sparse_histories_where_the_rest_is_bfloat16(monkeypatch):
    monkeypatch.setattr(speedups, "_SPARSE", 1.0)
    built, plain = (recommender("MultiVAE", precision=p) for p in ("bfloat16", "float32"))
    batch = next(iter(plain.batches()))
    mixed, full = (loss_and_gradients(one, batch) for one in (built, plain))
    assert mixed[0] == pytest.approx(float(full[0]), rel=1e-2)
    assert all(each.dtype == torch.float32 for each in mixed)


@pytest.mark.parametrize("model", ["MultiVAE", "MultiDAE", "RecVAE", "CDAE"])
def test_autoencoders_read_histories_as_recboles_do(model, monkeypatch):
    """Of 30 films, half a user's; dense inputs are multiplied as they are."""
    monkeypatch.setattr(speedups, "_SPARSE", 1.0)
    given = {} if model == "CDAE" else {"dropout_prob": 0.0}
    built, plain = recommender(model, **given), recommender(model, **given)
    assert any(type(layer) is SparseInput for layer in built.module.modules())
    for layer in plain.module.modules():
        if type(layer) is SparseInput:
            layer.__class__ = torch.nn.Linear
    batch, users = next(iter(built.batches())), torch.tensor([1, 2, 3])
    assert_close(loss_and_gradients(plain, batch), loss_and_gradients(built, batch))
    for one in (built, plain):
        one.module.eval()
    assert_close([plain.scores(users)], [built.scores(users)])


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_an_input_is_dropped_as_dropout_does(share):
    """By compressed rows and, with many entries, as it is: the same mean, and zeros by the rate."""
    torch.manual_seed(0)
    layer = SparseInput(1000, 1000)
    layer.rate = 0.25
    with torch.no_grad():
        layer.weight.copy_(torch.eye(1000))
        layer.bias.zero_()
    histories = (torch.rand(600, 1000) < share).float()
    out = layer(histories)
    kept = out[histories > 0]
    assert float((kept == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(kept.max()) == pytest.approx(1 / 0.75)
    assert not out[histories == 0].any()
    assert torch.equal(layer.eval()(histories), histories)


def test_attention_over_the_history_stays_recboles():
    built = recommender("SimpleX", aggregator="user_attention")
    speed_up("SimpleX", built.module)
    assert "calculate_loss" not in vars(built.module)


def test_neumf_drops_out_by_ours():
    built = recommender("NeuMF", dropout_prob=0.3)
    speed_up("NeuMF", built.module)
    kinds = [type(layer) for layer in built.module.mlp_layers.mlp_layers]
    assert kinds.count(Dropout) == 2
    assert torch.nn.Dropout not in kinds


@pytest.mark.parametrize("towers", [(True, True), (True, False), (False, True)])
def test_neumf_ranks_with_either_tower(towers):
    built = recommender("NeuMF", mf_train=towers[0], mlp_train=towers[1])
    built.module.eval()
    users = torch.tensor([1, 2, 3])
    order = built.scores(users)[:, 1:].argsort(dim=1, descending=True)
    slow = built.pairwise_scores(users).view(3, -1)[:, 1:]
    assert (slow.gather(1, order).diff(dim=1) <= 1e-5 * slow.abs().max()).all()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_dropout_hides_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    layer = Dropout(rate)
    ones = torch.ones(1001, 999, requires_grad=True)  # no multiple of four
    out = layer(ones)
    hidden = out == 0
    assert hidden.float().mean().item() == pytest.approx(rate, abs=0.002)
    assert hidden[:, 1:].eq(hidden[:, :-1]).float().mean().item() == pytest.approx(
        rate**2 + (1 - rate) ** 2, abs=0.003
    )  # neighbours are independent
    assert out.detach()[~hidden].unique().item() == pytest.approx(1 / (1 - rate))
    out.sum().backward()
    torch.testing.assert_close(ones.grad, out.detach())
    assert torch.equal(layer.eval()(ones), ones)
