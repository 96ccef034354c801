"""A training that was killed after an epoch and goes on ends as if it had never stopped."""

import io
import math

import numpy as np
import pytest
import torch

from models.config import Budget, Transfer
from models.training.training_loop import Fitted, fit
from models.training.validation import Holdout
from tasks.training import checkpoint_files
from tasks.training.checkpoint_files import CheckpointFile
from tests.support.toy_recommender import interactions, recommender, typical_models, weights, wrap

EPOCHS = 4


class Killed(Exception):
    """What ends a training in the middle."""


class Kept:
    """Checkpoints in memory, through the same serialisation as on disk."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def newest(self):
        if self.content is None:
            return None
        return torch.load(io.BytesIO(self.content), weights_only=True)

    def save(self, state) -> None:
        stream = io.BytesIO()
        torch.save(state(), stream)
        self.content = stream.getvalue()


def trained(model, transfer, checkpoints=None, killed_after=0, score=None, **settings):
    """A training in a fresh recommender; killed after some epochs, or finished."""
    built = recommender(model)
    holdout = Holdout.from_pairs(built, interactions()[1])
    budget = Budget(epochs=EPOCHS, patience=99).model_copy(update=settings)

    def on_epoch(done: int) -> None:
        if done == killed_after:
            raise Killed

    wrapper = wrap(built, transfer)
    fitted = fit(
        built,
        wrapper,
        lambda: holdout.score(built, "ndcg", 5) if score is None else score,
        budget,
        seed=1,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
    )
    return weights(built), fitted


def resumed(model, transfer, killed_after, **settings):
    kept = Kept()
    for moment in killed_after:
        with pytest.raises(Killed):
            trained(model, transfer, kept, moment, **settings)
    torch.manual_seed(99)  # another process's random numbers
    np.random.seed(99)
    return trained(model, transfer, kept, **settings)


def course(fitted: Fitted):
    return fitted.best_epoch, [epoch.model_dump(exclude={"seconds"}) for epoch in fitted.epochs]


def require_equal(one, other) -> None:
    assert course(one[1]) == course(other[1])
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)


@typical_models
def test_every_model_resumes_to_the_bit(model):
    whole = trained(model, None, epochs=2)
    require_equal(resumed(model, None, [1], epochs=2), whole)


@typical_models
def test_every_model_resumes_to_the_bit_with_transfer(model):
    """Killed in the transfer phase, to go on through fine-tuning."""
    whole = trained(model, Transfer())
    require_equal(resumed(model, Transfer(), [1]), whole)


@pytest.mark.parametrize(
    "transfer",
    [
        Transfer(alignment="contrastive"),
        Transfer(alignment="generative", schedule="joint"),
        Transfer(alignment="linear", schedule="decay"),
        Transfer(alignment="relational", balance="none"),
        Transfer(alignment="mapped", schedule="joint"),
        Transfer(alignment="init"),
    ],
    ids=lambda transfer: transfer.alignment,
)
def test_alignments_resume_with_their_heads_masks_and_balance(transfer):
    whole = trained("BPR", transfer)
    for killed_after in ([1, 2], [3]):
        require_equal(resumed("BPR", transfer, killed_after), whole)


def test_patience_goes_on_where_it_was():
    """A score that never improves: the second half's patience of one runs out at once."""
    stopped = {"score": 0.5, "patience": 1}
    whole = trained("BPR", Transfer(), **stopped)
    assert len(whole[1].epochs) == 3
    for killed_after in (1, 2, 3):
        require_equal(resumed("BPR", Transfer(), [killed_after], **stopped), whole)


@pytest.fixture
def checkpoint(data_dir, monkeypatch) -> CheckpointFile:
    """What one epoch of BPR leaves."""
    assert not data_dir.exists()
    monkeypatch.setattr(checkpoint_files, "SHARE", math.inf)
    made = CheckpointFile("key")
    assert made.newest() is None
    with pytest.raises(Killed):
        trained("BPR", None, made, killed_after=1)
    return made


def test_a_checkpoint_on_disk_is_taken_up(checkpoint):
    assert [file.name for file in checkpoint.path.parent.iterdir()] == ["key.pt"]
    done = []
    built = recommender("BPR")
    wrapper, budget = wrap(built, None), Budget(epochs=EPOCHS, patience=99)
    fitted = fit(built, wrapper, lambda: 0.0, budget, 1, done.append, CheckpointFile("key"))
    assert done == [2, 3, 4]
    assert len(fitted.epochs) == 4


@pytest.mark.parametrize("harm", ["altered", "cut", "empty", "of another training"])
def test_a_damaged_or_foreign_checkpoint_is_ignored_with_a_warning(checkpoint, caplog, harm):
    content = checkpoint.path.read_bytes()
    other = checkpoint
    if harm == "altered":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    elif harm == "cut":
        content = content[:-100]
    elif harm == "empty":
        content = b""
    else:
        other = CheckpointFile("other")
    other.path.write_bytes(content)
    assert other.newest() is None
    assert "The training starts from its first epoch." in caplog.text
    require_equal(trained("BPR", None, other), trained("BPR", None))


@pytest.fixture
def clock(data_dir, monkeypatch) -> list[float]:
    """The time in seconds; writing a checkpoint takes one."""
    assert data_dir
    clock = [0.0]
    monkeypatch.setattr(checkpoint_files, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(CheckpointFile, "_write", lambda *_: clock.__setitem__(0, clock[0] + 1.0))
    return clock


def written_after(clock, state, epochs: int) -> list[int]:
    """After which epochs of ten seconds a checkpoint is written."""
    file, written = CheckpointFile("key"), []
    for epoch in range(epochs):
        clock[0] += 10.0
        before = clock[0]
        file.save(lambda: state)
        if clock[0] > before:
            written.append(epoch)
    return written


def test_checkpoints_take_no_more_than_their_share_of_the_time(clock):
    """A small state is written at once; the next when two seconds are 2 %, and so on."""
    assert written_after(clock, {"x": torch.zeros(1)}, epochs=20) == [0, 9, 14, 19]
    assert 4 / clock[0] < 0.02


def test_a_large_state_waits_for_its_first_checkpoint(clock):
    """104 MB are taken to need 1.04 seconds, which are 2 % of 52."""
    assert written_after(clock, {"x": [torch.empty(26_000_000)]}, epochs=7) == [5]
