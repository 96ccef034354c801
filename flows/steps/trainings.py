"""All trainings of a run, side by side in worker processes."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.steps.knowledge import Knowledge
from flows.steps.stage_runner import Stages
from models.config import Job, Pipeline
from tasks.dataset.outputs import Interactions, Splits
from tasks.execution.worker_pool import ended_at_once
from tasks.storage.artifacts import Handle
from tasks.training.outputs import Trained
from tasks.training.tap_points import TapPoints
from tasks.training.training_task import predictions, training


def train_all(
    pipeline: Pipeline,
    entered: TapPoints,
    data: Interactions,
    parts: Splits,
    targeted: Knowledge,
    stages: Stages,
    initial: Handle | None = None,
) -> list[Trained]:
    """Train every model, arm and seed in worker processes.

    All trainings end before a failure is raised, so that none is lost to another's mistake.

    Args:
        pipeline: the run's configuration.
        entered: where knowledge enters each model.
        data: interactions, items and users.
        parts: the split.
        targeted: what each training with knowledge is given.
        stages: records.
        initial: what trainings start from, see `tasks.training.training_task.training`; None is a
            cold start.
    """
    asked = trainings_of(pipeline, entered, data, parts, targeted)
    jobs, inputs = [job for job, _ in asked], [given for _, given in asked]
    workers = min(pipeline.training.workers, len(jobs))
    runner: ThreadPoolTaskRunner[Trained] = ThreadPoolTaskRunner(max_workers=workers)
    with runner, ended_at_once():
        futures: list[PrefectFuture[Trained]] = [
            runner.submit(training, parameters={"job": job, "initial": initial, **given})
            for job, given in zip(jobs, inputs, strict=True)
        ]
        wait(futures)
        results = [future.result() for future in futures]
        states = [future.state for future in futures]
        results = predict_all(pipeline, results, inputs, parts.test, runner)
    stages.add_trainings(list(zip(jobs, states, results, strict=True)))
    return results


def predict_all(
    pipeline: Pipeline,
    trained: Sequence[Trained],
    inputs: Sequence[Mapping[str, Any]],
    test: Handle,
    runner: ThreadPoolTaskRunner[Trained],
) -> list[Trained]:
    """Where likes are predicted, let every trained model predict those of the test part.

    Args:
        pipeline: the run's configuration.
        trained: what was trained.
        inputs: what each training was given, in the same order.
        test: the pairs to predict.
        runner: an open one.
    """
    if pipeline.evaluation.like_from is None:
        return list(trained)
    futures: list[PrefectFuture[Trained]] = [
        runner.submit(predictions, parameters={"trained": of, "test_pairs": test, **given})
        for of, given in zip(trained, inputs, strict=True)
    ]
    wait(futures)
    return [future.result() for future in futures]


def trainings_of(
    pipeline: Pipeline,
    entered: TapPoints,
    data: Interactions,
    parts: Splits,
    targeted: Knowledge,
) -> list[tuple[Job, dict[str, Any]]]:
    """Every training that a pipeline asks for, and what the stage is given beside the job."""
    return [
        (
            job,
            {
                "train_pairs": parts.train,
                "valid_pairs": parts.valid,
                "users": data.users,
                "items": data.items,
                "targets": {
                    side: of.targets
                    for side, of in targeted.get((job.model, job.arm, job.seed), {}).items()
                },
            },
        )
        for job in jobs_of(pipeline, entered)
    ]


def jobs_of(pipeline: Pipeline, entered: TapPoints) -> list[Job]:
    """Every training that a pipeline asks for."""
    return pipeline.jobs(
        {model: {side: at.tap for side, at in sides.items()} for model, sides in entered.items()}
    )
