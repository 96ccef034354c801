"""Presets, and the published choices that they need: leaky profiles, columns, unequal epochs."""

import numpy as np
import pytest
import yaml

from flows.steps.knowledge import KnowledgeSteps
from flows.steps.stage_runner import StageRunner
from models.config import ItemProfiles, Job, Pipeline, Profiles, Tap, Transfer
from models.errors import BadInput
from models.evaluation.user_scores import UserValues
from models.profiles.prompt_templates import Template
from models.statistics.comparability import Run, Terms, obstacle
from tasks.config.pipeline_file import load
from tasks.dataset.outputs import Interactions, Splits
from tasks.embeddings.embeddings_task import embeddings
from tasks.embeddings.outputs import Embedded
from tasks.storage.artifacts import read_parquet, write_parquet
from tasks.training.tap_points import tap_points
from tests.support import toy_runs
from tests.support.toy_world import catalogue, train

MINIMAL = {"experiment": "toy", "models": {"BPR": {}, "MultiVAE": {}}}


def written(folder, **settings):
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | settings))
    return path


def test_a_preset_goes_below_what_the_file_says(tmp_path):
    pipeline = load(written(tmp_path, preset="as-published", transfer={"alpha": 0.3}))
    assert pipeline.transfer.alpha == 0.3
    assert pipeline.transfer.balance == "none"
    assert pipeline.targets.umap.n_neighbors == 64
    assert (pipeline.training.epochs, pipeline.training.transfer_epochs) == (20, 30)
    assert pipeline.profiles.interactions == "all"
    with pytest.raises(
        BadInput, match=r"toy\.yaml: preset: there is no best\. Choose one of as-published"
    ):
        load(written(tmp_path), ["preset=best"])


def test_corrected_is_what_is_done_without_a_preset(tmp_path):
    plain = load(written(tmp_path, training={"epochs": 30}))
    corrected = load(written(tmp_path, preset="corrected"))
    reduction = {"targets": plain.targets.model_copy(update={"reduction": "umap"})}
    assert corrected.digest() == plain.model_copy(update=reduction).digest()


def test_what_decides_a_result_is_part_of_the_identity():
    assert Profiles(allow_leakage=True).digest() == Profiles().digest()
    leaky = Profiles(interactions="all", allow_leakage=True)
    assert leaky.digest() != Profiles().digest()
    assert Transfer(columns=2).digest() != Transfer().digest()


@pytest.mark.parametrize("section", [Profiles, ItemProfiles])
def test_held_out_interactions_are_read_only_where_that_is_meant(section):
    with pytest.raises(ValueError, match="set allow_leakage to true"):
        section(interactions="all")
    with pytest.raises(ValueError, match="written here, not imported"):
        section(interactions="all", allow_leakage=True, provider="import", path="x.csv")


ROWS = [("ann", "a", 5, 1), ("ann", "b", 1, 2), ("bob", "a", 2, 3), ("bob", "c", 4, 4)]


class OfProfiles(StageRunner):
    """Computes profiles, and nothing after them."""

    def run(self, stage, *inputs, side=None):  # noqa: ARG002
        if stage is embeddings:
            return Embedded(
                embeddings=inputs[1], model="none", width=1, texts_cached=0, texts_embedded=0
            )
        return stage.fn(*inputs)


@pytest.mark.usefixtures("data_dir", "no_run_logger")
@pytest.mark.parametrize("side", ["users", "items"])
def test_profiles_of_all_ratings_are_leaky_and_say_so(side):
    whole, part = (write_parquet("interactions", train(*rows)) for rows in (ROWS, ROWS[:3]))
    titles = catalogue(*((item, f"Title {item}", 1990, ["Drama"]) for item in "abc"))
    data = Interactions(interactions=whole, items=write_parquet("items", titles), users=part)
    parts = Splits(train=part, valid=part, test=part)

    def made(seen):
        leak = {"interactions": seen, "allow_leakage": True}
        pipeline = Pipeline.model_validate(MINIMAL | {"profiles": leak, "item_profiles": leak})
        steps = KnowledgeSteps(pipeline, data, parts, OfProfiles())
        [found] = steps.describe({side: Template(text="")}, {})
        return found.provenance, read_parquet(found.profiled.profiles).num_rows

    # Bob's only training interaction is of a; of all interactions c is one, too.
    assert made("train") == ("train-only", 2)
    assert made("all") == ("leaky", 2 if side == "users" else 3)


def test_only_the_first_columns_are_tapped():
    def taps(**transfer):
        pipeline = Pipeline.model_validate(MINIMAL | {"transfer": transfer})
        return {
            model: (points["users"].tap, points["users"].width)
            for model, points in tap_points(pipeline).items()
        }

    narrow, whole = taps(columns=2), taps()
    for model, (tap, width) in narrow.items():
        assert width == 2
        assert whole[model][1] == 64
        assert tap == whole[model][0].model_copy(update={"stop": 2})
    with pytest.raises(BadInput, match=r"transfer\.columns is 65, .* of BPR is 64 wide"):
        taps(columns=65)


def test_more_epochs_for_transfer_are_not_comparable():
    config = toy_runs.pipeline(
        training={"epochs": 4, "transfer_epochs": 6, "valid_metric": "recall@2", "seeds": [1]}
    )
    taps = {"users": Tap(name="user_embedding")}
    values = UserValues(np.array(["a", "b"]), {})
    arms = {
        arm: [Run("BPR", arm, 1, Terms.of(job, "tiny", "aa", 9), values, arm)]
        for arm in ("baseline", "transfer")
        for job in [Job.of(config, "BPR", arm, 1, taps)]
    }
    assert obstacle(arms["transfer"], arms["baseline"]) == (
        "epoch budgets differ (baseline 4; arm 6)"
    )
