"""The trainings of all points in one pool of worker processes, each different one once."""

from queue import SimpleQueue

from prefect.futures import PrefectConcurrentFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows.steps.preparation import Request
from models.config import Job
from models.errors import Unavailable
from tasks.execution.progress import Tracker
from tasks.execution.worker_pool import require_workers
from tasks.training.outputs import Trained
from tasks.training.training_task import training

Result = Trained | Exception
"""A training, or why there is none."""


class Pool:
    """Takes requests, finds what is cached, trains the rest, and keeps every result.

    Attributes:
        jobs: every different training that was asked for, by key.
        ran: keys of those that were trained here, successfully or not.
        results: what came of those that have ended, by key.
    """

    def __init__(self, runner: ThreadPoolTaskRunner[Trained], tracker: Tracker) -> None:
        self.jobs: dict[str, Job] = {}
        self.ran: set[str] = set()
        self.results: dict[str, Result] = {}
        self._runner, self._tracker = runner, tracker
        self._futures: dict[str, PrefectConcurrentFuture[Trained]] = {}
        self._ended: SimpleQueue[str] = SimpleQueue()

    def start(self, request: Request) -> None:
        """Let it be trained, unless it is cached, done or under way.

        Raises:
            Unavailable: if there is no cluster to train it.
        """
        key = request.key
        if key in self.jobs:
            return
        self.jobs[key] = request.job
        found = request.cached()
        if found is not None:
            self.results[key] = found
            self._show()
            return
        require_workers()
        self.ran.add(key)
        future = self._runner.submit(training, parameters={"job": request.job, **request.inputs})
        self._futures[key] = future
        future.add_done_callback(lambda _: self._ended.put(key))

    def result(self, request: Request) -> Result | None:
        """What came of it; None while it is under way."""
        return self.results.get(request.key)

    def settle(self) -> str:
        """Wait until one more training has ended; its key.

        Raises:
            Unavailable: if the cluster is lost.
        """
        key = self._ended.get()
        future = self._futures.pop(key)
        future.wait()
        outcome = future.result(raise_on_failure=False)
        if isinstance(outcome, Unavailable):
            raise outcome
        self.results[key] = outcome
        self._show()
        return key

    def settle_all(self) -> None:
        """Wait until no training is under way."""
        while self._futures:
            self.settle()

    def _show(self) -> None:
        self._tracker.total = max(self._tracker.total, len(self.jobs))
        self._tracker(len(self.results))
