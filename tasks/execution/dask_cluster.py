"""A Dask cluster: reached through prefect-dask, its workers checked, functions submitted to it.

Prefect's tasks stay threads of the flow, so that caching, locks, states and the database are in
one place; a cluster calls plain functions, and calls them again elsewhere when a worker dies.
(`DaskTaskRunner.submit` runs Prefect's engine on every worker, which starts a server where none is
configured, and runs completed tasks again when the worker with their results is lost.)
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from models.config import Dask
from models.config.plugins import digests, require_same
from models.errors import BadInput, Unavailable
from tasks.execution.cache_key import code_versions
from tasks.storage.artifacts import (
    Handle,
    MissingArtifact,
    data_dir,
    discard,
    require_writable,
    write_bytes,
)

if TYPE_CHECKING:
    from distributed import Client, Future

P = ParamSpec("P")
R = TypeVar("R")

_SECONDS_BETWEEN_LOOKS = 5.0
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Environment:
    """The machine, data folder, code and plug-ins of a flow or a worker."""

    host: str
    data: str
    code: dict[str, str]
    plug_ins: dict[str, str]


def _environment() -> Environment:
    return Environment(socket.gethostname(), str(data_dir()), code_versions(), digests())


def _problem(flow: Environment, probe: Handle) -> str | None:
    """Run on a worker: why it cannot work for the flow, if so."""
    worker = _environment()
    try:
        require_same_code(flow, worker)
        probe.verify()
        require_writable()
    except MissingArtifact:
        return _other_data(flow, worker)
    except BadInput as error:
        return f"the worker on {worker.host}: {error}"
    return None


def _other_data(flow: Environment, worker: Environment) -> str:
    return (
        f"the worker on {worker.host} does not find what the flow has written: its "
        f"LLMKT_DATA_DIR is {worker.data}, the flow's is {flow.data} on {flow.host}. Let both "
        "lead to the same files"
    )


def require_same_code(flow: Environment, worker: Environment) -> None:
    """Refuse a worker that would compute something else; BadInput names what differs."""
    require_same(flow.plug_ins, worker.host)
    differences = [
        f"{name} {worker.code.get(name)} instead of {version}"
        for name, version in flow.code.items()
        if worker.code.get(name) != version
    ]
    if differences:
        raise BadInput(
            f"other versions on {worker.host} ({', '.join(differences)}). Install there what runs "
            "here, and start the worker again"
        )


def _call(flow: Environment, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Call a function on a worker, which may have come after the others were checked."""
    worker = _environment()
    require_same_code(flow, worker)
    try:
        with _ONE_AT_A_TIME:  # RecBole and torch keep global state
            return function(*args, **kwargs)
    except MissingArtifact as error:
        raise BadInput(f"{_other_data(flow, worker)} ({error})") from error


class Cluster(ExitStack):
    """A cluster that is connected to, or started on this machine, with the first submission.

    Leaving the context disconnects, and ends what was started here; nothing waits any longer.
    """

    def __init__(self, config: Dask, n: int) -> None:
        super().__init__()
        self._config, self._n = config, n
        self._connecting = threading.Lock()
        self._client: Client | None = None
        self._flow = _environment()
        self._size, self._counted_at = 0, float("-inf")

    def connect(self) -> "Client":
        """The connection, made and its workers checked when first asked for.

        Raises:
            Unavailable: if there is no scheduler, no worker, or one that must not work.
        """
        with self._connecting:
            if self._client is None:
                client = self._reach()
                self.require_a_worker(client)
                self._check(client)
                self._client = client
            return self._client

    def size(self) -> int:
        """How many workers there were a moment ago, at least 1."""
        now = time.monotonic()
        if now - self._counted_at > _SECONDS_BETWEEN_LOOKS:
            self._size, self._counted_at = len(self.connect().nthreads()), now
        return max(1, self._size)

    def submit(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> "ClusterFuture[R]":
        """Submit a call; it is made again elsewhere if its worker dies."""
        name = getattr(function, "__name__", "work")  # readable in Dask's pages and logs
        key = f"{name}-{os.getpid()}-{uuid.uuid4().hex}"
        submitted = self.connect().submit(
            _call, self._flow, function, *args, **kwargs, key=key, pure=False
        )
        return ClusterFuture(self, submitted)

    def _reach(self) -> "Client":
        from prefect_dask.task_runners import DaskTaskRunner

        where: dict[str, Any] = {"address": self._config.address}
        if self._config.address is None:
            # As the processes of `runner: local`: one thread each, no page, no limit of memory.
            own = {"n_workers": self._n, "threads_per_worker": 1, "memory_limit": 0}
            where = {"cluster_kwargs": own | {"dashboard_address": None}}
        timeout = {"timeout": self._config.timeout_seconds}
        runner = self.enter_context(DaskTaskRunner(**where, client_kwargs=timeout))
        try:
            client: Client = runner.client
        except OSError as error:
            raise Unavailable(
                f"dask.address: no Dask scheduler answers at {self._config.address} within "
                f"{self._config.timeout_seconds:g} s. Start one (dask scheduler), correct the "
                "address, or set runner to local"
            ) from error
        return client

    def require_a_worker(self, client: "Client") -> None:
        """Wait a while for a worker, if there is none; Unavailable if none comes."""
        if client.scheduler_info()["workers"]:
            return
        try:
            client.wait_for_workers(1, timeout=self._config.timeout_seconds)
        except TimeoutError as error:
            raise Unavailable(
                f"dask: {self._config.address or 'this machine'} has had no worker for "
                f"{self._config.timeout_seconds:g} s. Start some (dask worker ADDRESS --nthreads "
                "1), then run again; finished work is kept"
            ) from error

    def _check(self, client: "Client") -> None:
        """Refuse workers that would compute something else, or cannot reach the artifacts."""
        probe = write_bytes("probe", ".txt", uuid.uuid4().bytes)
        try:
            answers = client.run(_problem, self._flow, probe, on_error="return")
        finally:
            discard(probe.file)
        threads = client.nthreads()
        for address, problem in answers.items():
            if isinstance(problem, Exception):
                raise Unavailable(
                    f"dask: the worker {address} cannot run this project "
                    f"({type(problem).__name__}: {problem}). Install there what runs here, and "
                    "start it again"
                ) from problem
            if problem is not None:
                raise Unavailable(f"dask: {problem}")
            if threads.get(address, 1) != 1:
                raise Unavailable(
                    f"dask: the worker {address} has {threads[address]} threads, but trainings "
                    "share no process. Start one worker per core, with --nthreads 1"
                )


@dataclass(frozen=True)
class ClusterFuture(Generic[R]):
    """A call that was submitted."""

    cluster: Cluster
    submitted: "Future[R]"

    def result(self) -> R:
        """Wait for the result; the call's exception is raised here.

        Raises:
            BadInput: if every worker that took the call died.
            Unavailable: if the scheduler, or all workers, are gone.
        """
        from distributed import CancelledError, KilledWorker

        try:
            result: R = self._wait()
        except KilledWorker as error:
            raise BadInput(
                f"{error.allowed_failures + 1} workers in turn died of this work, probably for "
                "want of memory. See their logs, give them more, and run again"
            ) from error
        except CancelledError as error:
            raise Unavailable(
                "dask: the scheduler was lost. Start it and its workers again, then run again; "
                "finished work is kept"
            ) from error
        finally:
            # Dask computes what is still wanted anew when the worker that holds it is lost.
            self.submitted.release()
        return result

    def _wait(self) -> Any:
        while True:
            try:
                return self.submitted.result(timeout=_SECONDS_BETWEEN_LOOKS)
            except TimeoutError:
                if self.submitted.done():
                    raise
                self.cluster.require_a_worker(self.cluster.connect())
