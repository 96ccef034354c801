"""The training stage: killed and taken up again, started from a champion, keyed by content."""

import math

import pyarrow as pa
import pytest
from prefect import flow

from models.config import Budget, Job
from models.errors import BadInput
from models.schemas import INTERACTIONS
from models.schemas import ITEMS as ITEM_TABLE
from models.schemas import USERS as USER_TABLE
from tasks.execution.progress import Tracker
from tasks.storage.artifacts import Handle, write_parquet
from tasks.training import checkpoint_files
from tasks.training.checkpoint_files import checkpoint_file
from tasks.training.model_tables import Inputs
from tasks.training.training_task import training
from tasks.training.worker import starting_point
from tests.support.toy_recommender import ITEMS, UNIVERSE, USERS, interactions

pytestmark = pytest.mark.usefixtures("data_dir")


class Killed(Exception):
    """What ends a training in the middle."""


def job(model: str = "BPR", **changes) -> Job:
    known = {
        "model": model,
        "arm": "baseline",
        "seed": 1,
        "hyperparameters": {"train_batch_size": 64},
        "transfer": None,
        "taps": {},
        "kar": None,
        "budget": Budget(epochs=4, patience=9, valid_metric="ndcg@5"),
        "k": 5,
    }
    return Job.model_validate(known | changes)


def pairs(users: list[str], items: list[str]) -> Handle:
    n = len(users)
    table = pa.table([users, items, pa.nulls(n), list(range(n))], INTERACTIONS.names)
    return write_parquet("split", table.cast(INTERACTIONS))


def inputs() -> dict[str, object]:
    """The stage's arguments but for the job."""
    train, valid = interactions()
    columns = {
        "item_id": ITEMS,
        "title": ITEMS,
        "year": None,
        "genres": UNIVERSE.of_items["genres"],
    }
    catalogue = pa.Table.from_pydict(
        {
            name: pa.array([int(year) for year in UNIVERSE.of_items["year"]], pa.int32())
            if values is None
            else values
            for name, values in columns.items()
        }
    )
    return {
        "train_pairs": pairs(*train),
        "valid_pairs": pairs(*valid),
        "users": write_parquet("users", pa.table({"user_id": USERS}).cast(USER_TABLE)),
        "items": write_parquet("items", catalogue.select(ITEM_TABLE.names).cast(ITEM_TABLE)),
        "targets": {},
    }


def result(trained) -> tuple:
    """All that a training decides: artifacts by digest, and its course without the clock."""
    epochs = [epoch.model_dump(exclude={"seconds"}) for epoch in trained.epochs]
    return trained.rankings, trained.weights, trained.best_epoch, epochs


def test_a_killed_training_goes_on_and_ends_alike(data_dir, tmp_path, monkeypatch):
    given = inputs()
    key = training.key_of({"job": job(), **given})
    done: list[int] = []

    def call(_self: Tracker, epochs: int) -> None:
        done.append(epochs)
        if len(done) == 2:
            raise Killed

    monkeypatch.setattr(Tracker, "__call__", call)
    monkeypatch.setattr(checkpoint_files, "SHARE", math.inf)  # after every epoch
    with pytest.raises(Killed):
        training.fn(job(), **given)
    assert done == [1, 2]
    left = checkpoint_file(key)
    assert left.parent == data_dir / "checkpoints"
    assert left.is_file()
    resumed = training.fn(job(), **given)
    assert done == [1, 2, 3, 4]
    monkeypatch.setenv("LLMKT_DATA_DIR", str(tmp_path / "other"))
    inputs()
    whole = training.fn(job(), **given)
    assert result(resumed) == result(whole)


@pytest.mark.usefixtures("prefect_server")
def test_a_checkpoint_goes_when_the_result_is_stored(monkeypatch):
    """Also one that was left by a kill between the two."""
    monkeypatch.setattr(checkpoint_files, "SHARE", math.inf)
    given = inputs()
    left = checkpoint_file(training.key_of({"job": job(), **given}))

    @flow
    def train() -> str:
        return training(job(), **given, return_state=True).name

    assert train() == "Completed"
    assert left.parent.is_dir()
    assert not left.exists()
    left.write_bytes(b"left by a kill")
    assert train() == "Cached"
    assert not left.exists()


def test_no_initial_leaves_keys_and_results_as_they_were():
    given = inputs()
    before = training.key_of({"job": job(), **given})
    assert training.key_of({"job": job(), **given, "initial": None}) == before
    champion = training.fn(job(), **given)
    initial = starting_point(job(), champion.weights, as_inputs(given))
    assert training.key_of({"job": job(), **given, "initial": initial}) != before


def as_inputs(given) -> Inputs:
    return Inputs(
        given["train_pairs"], given["valid_pairs"], given["users"], given["items"], targets={}
    )


def test_a_champion_gives_a_training_its_start():
    given = inputs()
    champion = training.fn(job(hyperparameters={"learning_rate": 0.02}), **given)
    initial = starting_point(champion.job, champion.weights, as_inputs(given))
    assert initial.path.startswith("artifacts/initial/")
    cold = training.fn(job(), **given)
    warm = training.fn(job(), **given, initial=initial)
    assert result(warm) != result(cold)
    assert warm.epochs[0].model_loss < 0.9 * cold.epochs[0].model_loss
    assert result(training.fn(job(), **given, initial=initial)) == result(warm)
    with pytest.raises(BadInput, match=r"user_embedding.weight is \(41, 64\)"):
        training.fn(job(hyperparameters={"embedding_size": 8}), **given, initial=initial)
    with pytest.raises(BadInput, match="does not say whose its rows are"):
        training.fn(job(), **given, initial=champion.weights)


@pytest.mark.parametrize(("reg_weight", "warned"), [(100.0, True), (0.01, False)])
def test_vectors_that_shrink_to_zero_are_said_with_what_to_change(reg_weight, warned, caplog):
    heavy = {"reg_weight": reg_weight, "embedding_size": 8}
    training.fn(job("iALS", hyperparameters=heavy), **inputs())
    said = "Set models.iALS.hyperparameters.unobserved_weight to a tenth" in caplog.text
    assert said == warned
