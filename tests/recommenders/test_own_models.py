"""One's own models: the examples keep the contract, and broken ones are told how."""

import json
import random

import pytest
import torch
from typer.testing import CliRunner

from flows.cli.main import app
from models.config import Model
from models.errors import BadInput
from models.recommenders.registry import entry
from models.recommenders.tap_probe import probe, toy
from models.training.model_contract import promises
from tasks.config.pipeline_file import validated
from tasks.storage.artifacts import PROJECT_ROOT
from tasks.training.tap_points import tap_points
from tests.config.test_plugins import write  # noqa: F401 - a fixture

EXAMPLES = PROJECT_ROOT / "examples"
PLAIN = f"{EXAMPLES}/matrix_factorization.py:MatrixFactorization"
SUBCLASS = f"{EXAMPLES}/popularity_aware_bpr.py:PopularityAwareBPR"


@pytest.mark.parametrize("name", [PLAIN, SUBCLASS, "BPR"])
def test_the_contract_holds(name):
    found = list(promises(name, Model()))
    assert len(found) == 10
    assert [promise for promise in found if not promise[1]] == []


def test_a_subclass_takes_its_parents_loader_taps_and_hyperparameters():
    own, parent = entry(SUBCLASS), entry("BPR")
    assert (own.family, own.loader, own.tap, own.item_tap) == (
        parent.family,
        parent.loader,
        parent.tap,
        parent.item_tap,
    )
    built = toy(SUBCLASS, {"start": 0.5, "embedding_size": 8})
    assert float(built.module.weight) == 0.5
    assert built.module.user_embedding.embedding_dim == 8


COMPUTED = """
import torch
class Computed(torch.nn.Module):
    loader = None
    def __init__(self, data, scale=1.0):
        super().__init__()
        counts = torch.bincount(data.items, minlength=data.n_items)
        self.register_buffer("counts", scale * counts.float())
        self.register_buffer("turned", torch.ones(2, 3).T)
    def scores(self, users):
        return self.counts.repeat(len(users), 1)
"""


def test_a_computed_model_has_no_loss(write):  # noqa: F811
    name = write(COMPUTED)
    assert entry(f"{name}:Computed").loader is None
    pipeline = validated({"experiment": "x", "models": {f"{name}:Computed": {}}}, "here")
    assert tap_points(pipeline) == {f"{name}:Computed": {}}
    built = toy(f"{name}:Computed", {"scale": 2.0})
    assert float(built.scores(torch.tensor([1]))[0].sum()) == 2 * len(built.train_items)
    assert built.weights()["turned"].is_contiguous()  # as files of weights must be
    with pytest.raises(BadInput, match="is computed, not trained by gradient: it has no loss"):
        list(promises(f"{name}:Computed", Model()))


def test_a_model_of_recbole_can_be_named_by_its_path():
    point = probe("recbole.model.sequential_recommender:NARM", {"embedding_size": 8})
    assert point.width == 8


def test_a_toy_leaves_random_as_it_was():
    """Prefect draws its temporary server's port: two runs at once must not draw the same."""
    random.seed(11)
    expected = random.random()
    random.seed(11)
    toy("BPR", {})
    assert random.random() == expected


@pytest.mark.parametrize("loader", ["pairwise", "pointwise", "users"])
def test_the_key_loader_says_what_a_batch_holds(loader):
    batch = next(iter(toy(PLAIN, {"loader": loader}).batches()))
    assert (
        set(batch)
        == {
            "pairwise": {"user_id", "item_id", "neg_item_id"},
            "pointwise": {"user_id", "item_id", "label"},
            "users": {"user_id"},
        }[loader]
    )


GOOD = """
import torch
from torch import nn
drawn = iter(range(10**6))
class M(nn.Module):
    taps = {"users": "u"}
    def __init__(self, data, width: int = 8):
        super().__init__()
        self.u, self.i = nn.Embedding(data.n_users, width), nn.Embedding(data.n_items, width)
    def gap(self, batch):
        return (self.u(batch["user_id"]) * self.i(batch["neg_item_id"])).sum(1)
    def loss(self, batch):
        liked = (self.u(batch["user_id"]) * self.i(batch["item_id"])).sum(1)
        return nn.functional.softplus(self.gap(batch) - liked).mean()
    def scores(self, users):
        return self.u(users) @ self.i.weight.T
"""


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ("", "", None),
        ("(batch) - liked", "(batch) * 0 - liked + next(drawn)", "a seed gives one training"),
        (
            "self.i.weight.T",
            "self.i.weight.T * (1 + 0 * next(drawn)) + users[0]",
            "do not depend on who else",
        ),
        ("return self.u(", "return 0 * self.u(", "changing it changes all"),
        ("return nn.functional.softplus(", "return -nn.functional.softplus(", "training lifts"),
    ],
)  # fmt: skip
def test_a_broken_model_is_told_what_does_not_hold(write, old, new, broken):  # noqa: F811
    found = list(promises(f"{write(GOOD.replace(old, new, 1))}:M", Model()))
    failed = [promise for promise in found if not promise[1]]
    if broken is None:
        assert not failed
    else:
        assert any(broken in promise[0] and promise[2] for promise in failed), failed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".mean()", "", r"M.loss\(batch\) must return a scalar tensor .* not shape"),
        (".mean()", ".mean() * float('nan')", "M's loss and scores on toy data must be finite"),
        ("return self.u(users) @", "return self.u(users).sum(0) @", r"shape \(24, 31\), a row"),
        ('batch["item_id"]', 'batch["item"]', r"M.loss\(batch\) failed with KeyError: 'item'"),
        ("width: int = 8", "width", r"M\(data, …\) failed with TypeError: .* 'width'"),
        ("self, data, width: int = 8", "self", r"M\(data, …\) failed with TypeError"),
        (
            'taps = {"users": "u"}',
            "",
            "it has no default tap for users.*tap to one of module u, module i",
        ),
        ('"users": "u"', '"users": "v"', "has no module v to tap. Choose one of u, i"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(write, old, new, message):  # noqa: F811
    name = f"{write(GOOD.replace(old, new, 1))}:M"
    pipeline = validated({"experiment": "x", "models": {name: {}}}, "here")
    with pytest.raises(BadInput, match=message):
        tap_points(pipeline)


def test_a_model_without_a_tap_trains_as_a_baseline(write):  # noqa: F811
    name = f"{write(GOOD.replace('taps', 'no_taps'))}:M"
    raw = {"experiment": "x", "models": {name: {}}, "training": {"arms": ["baseline"]}}
    assert tap_points(validated(raw, "here")) == {name: {}}


def test_the_command_says_what_does_not_hold(write):  # noqa: F811
    broken = GOOD.replace("return self.u(users)", "return torch.ones_like(self.u(users))")
    done = CliRunner().invoke(app, ["check-model", f"{write(broken)}:M"])
    assert done.exit_code == 1
    assert "BROKEN: users' tap, module u: changing it changes all scores. Tap what" in done.stdout
    done = CliRunner().invoke(app, ["check-model", f"{write(GOOD)}:M", "--json"])
    assert done.exit_code == 0
    assert all(row["holds"] for row in json.loads(done.stdout))
    assert CliRunner().invoke(app, ["check-model", "Pop"]).exit_code == 2
