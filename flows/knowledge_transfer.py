"""The main flow: one configuration in, one comparison out."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows.steps.comparison import Summary, compare
from flows.steps.preparation import prepare
from flows.steps.stage_runner import StageRunner
from flows.steps.trainings import training_pool
from models.config import Pipeline
from tasks.config.pipeline_file import given


@flow(name="knowledge-transfer")
def knowledge_transfer(
    config: Pipeline | Path = Path("configs/ml-100k.yaml"), overrides: Sequence[str] = ()
) -> Summary:
    """Train every model with and without knowledge transfer, and compare.

    `config` is a pipeline, or the path of its YAML file, over which `overrides`, `dotted.key=value`
    texts, are applied.
    """
    pipeline = given(config, overrides)
    stages = StageRunner()
    with training_pool(pipeline) as pool:
        prepared = prepare(pipeline, stages)
        pool.start(*prepared.requests)
        pool.wait_for_all()
        part = pool.trained(prepared)
    stages.add_trainings(pool.ended())
    return compare(pipeline.experiment, [part], stages)
