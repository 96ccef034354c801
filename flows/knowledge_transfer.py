"""The main flow: one configuration in, one comparison out."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from prefect import flow

from flows.steps.comparison import Summary, compare
from flows.steps.preparation import prepare
from flows.steps.stage_runner import CachedStages, NotCached, StageRunner
from flows.steps.trainings import TrainingPool, Trainings, training_pool
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
    return _compared(pipeline, StageRunner(), training_pool(pipeline))


def run(config: Pipeline | Path, overrides: Sequence[str] = ()) -> Summary:
    """Answer from the cache if it holds every result; otherwise run the flow above."""
    pipeline = given(config, overrides)
    with suppress(NotCached):
        return _compared(pipeline, CachedStages(), nullcontext(TrainingPool()))
    return knowledge_transfer(pipeline)


def _compared(pipeline: Pipeline, stages: StageRunner, trainings: Trainings) -> Summary:
    with trainings as pool:
        prepared = prepare(pipeline, stages, weights="needed")
        pool.start(*prepared.requests)
        pool.wait_for_all()
        part = pool.trained(prepared)
    stages.add_trainings(pool.ended())
    return compare(pipeline.experiment, [part], stages)
