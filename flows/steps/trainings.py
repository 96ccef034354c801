"""Trainings in worker processes, each different one once, side by side."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from prefect.futures import PrefectConcurrentFuture, PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.steps.preparation import Prepared, Request
from flows.steps.stage_runner import NotCached
from models.config import Job, Pipeline
from models.errors import Unavailable
from tasks.evaluation.inputs import Part
from tasks.execution.progress import Tracker, track
from tasks.execution.worker_pool import ended_at_once, require_workers, worker_pool
from tasks.training.outputs import Trained
from tasks.training.training_task import predictions

Result = Trained | Exception
"""A trained model, or the error that kept it from being trained."""
Trainings = AbstractContextManager["TrainingPool"]


@contextmanager
def training_pool(pipeline: Pipeline, workers: int | None = None) -> Iterator["TrainingPool"]:
    """Open a pool of worker processes, which start when the first training needs them.

    `workers` is how many trainings run at the same time; None means `training.workers`.
    """
    n = workers or pipeline.training.workers
    runner: ThreadPoolTaskRunner[Trained] = ThreadPoolTaskRunner(max_workers=n)
    with (
        track(f"experiment {pipeline.experiment}", 1) as tracker,
        worker_pool(pipeline, n),
        runner,
        ended_at_once(),
    ):
        yield TrainingPool(runner, tracker)


class TrainingPool:
    """Takes requests, finds what is cached, trains the rest, and keeps every result by key.

    Without a runner nothing is trained: NotCached is raised for what is not cached.
    """

    def __init__(
        self, runner: ThreadPoolTaskRunner[Trained] | None = None, tracker: Tracker | None = None
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.ran: set[str] = set()  # trained here, successfully or not
        self.results: dict[str, Result] = {}
        self._runner, self._tracker = runner, tracker
        self._futures: dict[str, PrefectConcurrentFuture[Trained]] = {}
        self._ended: SimpleQueue[str] = SimpleQueue()

    def start(self, *requests: Request) -> None:
        """Train what is neither cached, nor done, nor under way.

        Raises:
            Unavailable: if there is no cluster to train it.
            NotCached: without a runner.
        """
        for request in requests:
            key = request.key
            if key in self.jobs:
                continue
            self.jobs[key] = request.job
            found = request.cached()
            if found is not None:
                self.results[key] = found
                self._show()
                continue
            future = self._submit(request.task, {"job": request.job, **request.inputs})
            self.ran.add(key)
            self._futures[key] = future
            future.add_done_callback(partial(self._note_end, key))

    def wait_for_one(self) -> str:
        """Wait until one more training has ended; its key. Unavailable if the cluster is lost."""
        key = self._ended.get()
        future = self._futures.pop(key)
        future.wait()
        result = future.result(raise_on_failure=False)
        if isinstance(result, Unavailable):
            raise result
        self.results[key] = result
        self._show()
        return key

    def wait_for_all(self) -> None:
        """Wait until no training is under way, so that none is lost to another's mistake."""
        while self._futures:
            self.wait_for_one()

    def trained(self, prepared: Prepared) -> Part:
        """A prepared pipeline with its trained models, and where likes are predicted, with those.

        Raises:
            Exception: the first of its trainings' that failed.
        """
        trained = []
        for request in prepared.requests:
            result = self.results[request.key]
            if isinstance(result, Exception):
                raise result
            trained.append(result)
        if prepared.part.pipeline.evaluation.like_from is not None:
            trained = self._predicted(prepared, trained)
        return prepared.part.model_copy(update={"trained": tuple(trained)})

    def _predicted(self, prepared: Prepared, trained: list[Trained]) -> list[Trained]:
        """Let every model predict the likes of the test part."""
        test = {"test_pairs": prepared.part.splits.test}
        inputs = [
            {"trained": model, **test, **given.inputs}
            for model, given in zip(trained, prepared.requests, strict=True)
        ]
        found = [predictions.cached(**given) for given in inputs]
        futures: dict[int, PrefectFuture[Trained]] = {
            n: self._submit(predictions, inputs[n]) for n, model in enumerate(found) if not model
        }
        wait([*futures.values()])
        return [model or futures[n].result() for n, model in enumerate(found)]

    def _submit(self, stage: Any, inputs: dict[str, Any]) -> PrefectConcurrentFuture[Trained]:
        if self._runner is None:
            raise NotCached(stage.name)
        require_workers()
        return self._runner.submit(stage, parameters=inputs)

    def ended(self) -> list[tuple[Job, bool, Result]]:
        """Every different training: its job, whether it was cached, and its result."""
        return [(job, key not in self.ran, self.results[key]) for key, job in self.jobs.items()]

    def counts(self, keys: Iterable[str]) -> dict[str, Any]:
        """How many trainings ran, were cached or failed."""
        keys = set(keys)
        failed = {key for key in keys if not isinstance(self.results.get(key), Trained)}
        ran = (keys & self.ran) - failed
        return {"ran": len(ran), "failed": len(failed), "cached": len(keys - ran - failed)}

    def _note_end(self, key: str, _: object) -> None:
        self._ended.put(key)

    def _show(self) -> None:
        if self._tracker is not None:
            self._tracker.total = max(self._tracker.total, len(self.jobs))
            self._tracker(len(self.results))
