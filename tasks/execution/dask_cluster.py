"""A Dask cluster: reached through prefect-dask, its workers checked, work handed to them.

Prefect's tasks stay threads of the flow, so that caching, locks, states and the database are in
one place; what a cluster is given are plain functions, which it simply calls again elsewhere when a
worker dies. (`DaskTaskRunner.submit` runs Prefect's engine on every worker, which starts a server
where none is configured, and runs completed tasks again when the worker with their results is
lost.)
"""

import hashlib
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from models.config import Dask
from models.errors import BadInput, Unavailable
from tasks.storage.artifacts import (
    PROJECT_ROOT,
    Handle,
    MissingArtifact,
    data_dir,
    discard,
    require_writable,
    versions,
    write_bytes,
)

if TYPE_CHECKING:
    from distributed import Client, Future

P = ParamSpec("P")
R = TypeVar("R")

_SECONDS_BETWEEN_LOOKS = 5.0
_ALONE = threading.Lock()


@dataclass(frozen=True)
class Place:
    """Where code runs, and which.

    Attributes:
        host: the machine's name.
        data: its data folder.
        code: versions of everything that decides a result, by name.
        problem: why it cannot work with the flow's artifacts, if so.
    """

    host: str
    data: str
    code: dict[str, str]
    problem: str | None = None


@cache
def _code() -> dict[str, str]:
    """Python, the packages that decide results, and a digest of the project's own code."""
    digest = hashlib.sha256()
    for room in ("models", "tasks"):
        for file in sorted((PROJECT_ROOT / room).rglob("*.py")):
            digest.update(file.relative_to(PROJECT_ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    python = platform.python_version()
    return {"python": python, "code": digest.hexdigest()[:12], **versions()}


def _here() -> Place:
    return Place(socket.gethostname(), str(data_dir()), _code())


def _greet(flow: Place, probe: Handle) -> Place:
    """A worker's answer to a flow: who it is, and what keeps it from working, if anything."""
    here = _here()
    try:
        require_same_code(flow, here)
        probe.verify()
        require_writable()
    except MissingArtifact:
        return replace(here, problem=_elsewhere(flow, here))
    except BadInput as error:
        return replace(here, problem=f"the worker on {here.host}: {error}")
    return here


def _elsewhere(flow: Place, worker: Place) -> str:
    return (
        f"the worker on {worker.host} does not find what the flow has written: its "
        f"LLMKT_DATA_DIR is {worker.data}, the flow's is {flow.data} on {flow.host}; both must "
        "lead to the same files"
    )


def require_same_code(flow: Place, worker: Place) -> None:
    """Refuse a worker that would compute something else.

    Raises:
        BadInput: naming what differs.
    """
    differences = [
        f"{name} {worker.code.get(name)} instead of {version}"
        for name, version in flow.code.items()
        if worker.code.get(name) != version
    ]
    if differences:
        raise BadInput(
            f"other versions on {worker.host} ({', '.join(differences)}); install there what runs "
            "here, and start the worker again"
        )


def _work(flow: Place, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Call a function on a worker, which may have come after the others were checked."""
    here = _here()
    require_same_code(flow, here)
    try:
        with _ALONE:  # RecBole and torch keep global state
            return function(*args, **kwargs)
    except MissingArtifact as error:
        raise BadInput(f"{_elsewhere(flow, here)} ({error})") from error


class Cluster:
    """Connects, or starts its own workers, when work is first handed out."""

    def __init__(self, config: Dask, n: int) -> None:
        self._config, self._n = config, n
        self._stack = ExitStack()
        self._connecting = threading.Lock()
        self._client: Client | None = None
        self._here = _here()
        self._size, self._counted_at = 0, float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Part with it, and end what was started here; whoever waits for work waits no longer."""
        self._stack.close()

    def connect(self) -> "Client":
        """The connection, made and its workers checked when first asked for.

        Raises:
            Unavailable: if there is no scheduler, no worker, or one that must not work.
        """
        with self._connecting:
            if self._client is None:
                self._client = self._connected()
            return self._client

    def size(self) -> int:
        """How many workers there were a moment ago, at least 1."""
        now = time.monotonic()
        if now - self._counted_at > _SECONDS_BETWEEN_LOOKS:
            self._size, self._counted_at = len(self.connect().nthreads()), now
        return max(1, self._size)

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "OnCluster[R]":
        """Hand out a call; it is made again elsewhere if its worker dies."""
        future = self.connect().submit(
            _work, self._here, function, *args, **kwargs, key=_key(function), pure=False
        )
        return OnCluster(self, future)

    def require_a_worker(self) -> None:
        """Wait a while for one, if all are gone.

        Raises:
            Unavailable: if none comes.
        """
        client = self.connect()
        if not client.scheduler_info()["workers"]:
            self._wait_for_one(client)

    def _connected(self) -> "Client":
        from prefect_dask.task_runners import DaskTaskRunner

        place: dict[str, Any] = {"address": self._config.address}
        if self._config.address is None:
            place = {"cluster_kwargs": self._own()}
        timeout = {"timeout": self._config.timeout_seconds}
        runner = self._stack.enter_context(DaskTaskRunner(**place, client_kwargs=timeout))
        try:
            client: Client = runner.client
        except OSError as error:
            raise Unavailable(
                f"dask.address: no Dask scheduler answers at {self._config.address} within "
                f"{self._config.timeout_seconds:g} s; start one (dask scheduler), correct the "
                "address, or set runner to local"
            ) from error
        self._wait_for_one(client)
        self._check(client)
        return client

    def _own(self) -> dict[str, Any]:
        """As the processes of `runner: local`: one thread each, no page, no limit of memory."""
        return {
            "n_workers": self._n,
            "threads_per_worker": 1,
            "memory_limit": 0,
            "dashboard_address": None,
        }

    def _wait_for_one(self, client: "Client") -> None:
        try:
            client.wait_for_workers(1, timeout=self._config.timeout_seconds)
        except TimeoutError as error:
            raise Unavailable(
                f"dask: {self._config.address or 'this machine'} has had no worker for "
                f"{self._config.timeout_seconds:g} s; start some (dask worker ADDRESS --nthreads "
                "1), then run again: what was finished is kept"
            ) from error

    def _check(self, client: "Client") -> None:
        """Refuse workers that would compute something else, or cannot reach the artifacts."""
        probe = write_bytes("probe", ".txt", uuid.uuid4().bytes)
        try:
            answers = client.run(_greet, self._here, probe, on_error="return")
        finally:
            discard(probe.file)
        threads = client.nthreads()
        for address, answer in answers.items():
            if isinstance(answer, Exception):
                raise Unavailable(
                    f"dask: the worker {address} cannot run this project "
                    f"({type(answer).__name__}: {answer}); install there what runs here, and "
                    "start it again"
                ) from answer
            if answer.problem is not None:
                raise Unavailable(f"dask: {answer.problem}")
            if threads.get(address, 1) != 1:
                raise Unavailable(
                    f"dask: the worker {address} has {threads[address]} threads, but trainings "
                    "share no process; start one worker per core, with --nthreads 1"
                )


class OnCluster(Generic[R]):
    """A call that was handed out."""

    def __init__(self, cluster: Cluster, future: "Future[R]") -> None:
        self._cluster, self._future = cluster, future

    def result(self) -> R:
        """What came of it; its exception is raised here.

        Raises:
            BadInput: if every worker that took it died.
            Unavailable: if the scheduler, or all workers, are gone.
        """
        from distributed import CancelledError, KilledWorker

        try:
            result: R = self._wait()
        except KilledWorker as error:
            raise BadInput(
                f"{error.allowed_failures + 1} workers in turn died of this work, probably for "
                "want of memory; see their logs, give them more, and run again"
            ) from error
        except CancelledError as error:
            raise Unavailable(
                "dask: the scheduler was lost; start it and its workers again, then run again: "
                "what was finished is kept"
            ) from error
        finally:
            # Dask computes what is still wanted anew when the worker that holds it is lost.
            self._future.release()
        return result

    def _wait(self) -> Any:
        while True:
            try:
                return self._future.result(timeout=_SECONDS_BETWEEN_LOOKS)
            except TimeoutError:
                if self._future.done():
                    raise
                self._cluster.require_a_worker()


def _key(function: Callable[..., Any]) -> str:
    """Readable in Dask's pages and logs, and unlike all others."""
    name = getattr(function, "__name__", "work")
    return f"{name}-{os.getpid()}-{uuid.uuid4().hex}"
