"""Worker processes of a run: on this machine, or the workers of a Dask cluster.

RecBole and torch keep global state (random numbers, threads), so trainings share no process
while they run; a process is used again for the next one. Nothing starts before it is needed.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.sharedctypes import Synchronized
from typing import ParamSpec, TypeVar

from models.config import Pipeline
from models.config.plugins import digests, require_same
from models.errors import Unavailable
from tasks.execution.dask_cluster import Cluster, ClusterFuture

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# By default glibc hands each freed batch of tens of megabytes back to the kernel, which then
# clears the pages anew for the next one: a quarter of SimpleX's time per epoch.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
}
_WAITING_PER_WORKER = 2

_pool: ProcessPoolExecutor | Cluster | None = None
_number = 0
"""Of this worker process, from 0 in the order in which they start."""


@contextmanager
def worker_pool(pipeline: Pipeline, workers: int | None = None) -> Iterator[None]:
    """Let `in_worker` and `spread` use processes of this machine, or a cluster, as `runner` says.

    `workers` is how many processes are started here; None means `training.workers`.
    """
    global _pool
    for name, value in _KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    n = workers or pipeline.training.workers
    with Cluster(pipeline.dask, n) if pipeline.runner == "dask" else _processes(n) as _pool:
        try:
            yield
        finally:
            _pool = None


@contextmanager
def ended_at_once() -> Iterator[None]:
    """End all work when the block is left by a signal: nobody waits for a result.

    It belongs inside of whatever waits for them. An error of one training leaves the others be.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        if isinstance(_pool, Cluster):
            _pool.close()
        for process in active_children():
            process.terminate()
        raise


def _processes(n: int) -> ProcessPoolExecutor:
    context = get_context("spawn")
    return ProcessPoolExecutor(
        n,
        mp_context=context,
        initializer=_start_worker,
        initargs=(os.getpid(), context.Value("i", 0)),
    )


def _start_worker(parent: int, started: "Synchronized[int]") -> None:
    """Number the worker, and leave none behind when the run that started it is killed."""
    global _number
    with started.get_lock():
        _number = started.value
        started.value += 1

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def worker_number() -> int:
    """Number of this process in its pool, from 0; a cluster's worker sees only its own GPU."""
    return _number


def require_workers() -> None:
    """Reach the cluster, if there is one, before anything is paid for; see `Cluster.connect`."""
    if isinstance(_pool, Cluster):
        _pool.connect()


def on_cluster() -> bool:
    """Whether work is spread over a cluster."""
    return isinstance(_pool, Cluster)


def in_worker(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a worker process; in this one where there are none."""
    if _pool is None:
        return function(*args, **kwargs)
    try:
        if isinstance(_pool, ProcessPoolExecutor):
            _pool.submit(require_same, digests(), "disk").result()
        return _pool.submit(function, *args, **kwargs).result()
    except BrokenProcessPool as error:
        raise Unavailable(
            "a worker process ended early. In a script, call under `if __name__ == '__main__':`; "
            "else lower training.workers, for memory. Finished work is kept."
        ) from error


def spread(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each item, in their order, by the workers of the cluster that there is.

    A few items per worker are on their way at a time, so that neither `items` nor results pile up.
    """
    assert isinstance(_pool, Cluster)
    waiting: deque[ClusterFuture[R]] = deque()
    for item in items:
        if len(waiting) >= _WAITING_PER_WORKER * _pool.size():
            yield waiting.popleft().result()
        waiting.append(_pool.submit(function, item))
    while waiting:
        yield waiting.popleft().result()
