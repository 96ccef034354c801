"""When a stage may be skipped: keys by content, verified results, kill-safe locks.

A key is the task's name, its version and the sha256 of its inputs, with artifact handles
standing for their content and configuration sections for the fields that decide the result.
A cached result counts only while every artifact behind it is there, unaltered.
"""

import hashlib
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from prefect import Task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.locking.protocol import LockManager
from prefect.logging import disable_run_logger
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.transactions import IsolationLevel
from pydantic import BaseModel

from models.config import NOT_IDENTITY, Section
from tasks.disk import writing
from tasks.kept_results import has_result, result_storage
from tasks.storage import Handle, MissingArtifact, Verifiable, data_dir

F = TypeVar("F", bound=Callable[..., Any])


class VerifiedJSON(JSONSerializer[Any]):
    """JSON that refuses to load when a class it names, or an artifact behind it, is gone.

    Prefect takes the refusal for a cache miss, so deleted or damaged files heal themselves, and a
    data folder survives a class that was renamed or moved.
    """

    type: str = "llmkt-verified-json"

    def loads(self, blob: bytes) -> Any:
        """Decode `blob` and verify every `Handle` and `Verifiable` in it.

        Raises:
            MissingArtifact: if an artifact is gone or altered.
            ValueError: if a class is gone, or its fields are others now.
        """
        value = super().loads(blob)
        verify(value)
        return value


def verify(value: Any) -> None:
    """Verify every handle found in a task's result (models, mappings and sequences)."""
    if isinstance(value, BaseModel):
        if isinstance(value, Verifiable):
            value.verify()
        for field in type(value).model_fields:
            verify(getattr(value, field))
    elif isinstance(value, Mapping):
        if "__class__" in value:  # Prefect decodes a class that it cannot import as a plain dict.
            raise ValueError(f"the cached result names {value['__class__']}, which is gone")
        for item in value.values():
            verify(item)
    elif isinstance(value, list | tuple):
        for item in value:
            verify(item)


class Stage(Task[..., Any]):
    """A task whose results live under the data folder, wherever that is when the task runs.

    Attributes:
        key_of: the cache key of a call, given its arguments by name.
    """

    key_of: Callable[[Mapping[str, Any]], str]

    @property
    def result_storage(self) -> WritableFileSystem:
        """Prefect's own default is fixed when settings load, before `--data-dir` is known."""
        return result_storage()

    @result_storage.setter
    def result_storage(self, _: object) -> None:
        """`Task.__init__` assigns its argument; the property above decides."""

    def key(self, *inputs: Any, **named: Any) -> str:
        """The cache key of a call with these arguments."""
        bound = inspect.signature(self.fn).bind(*inputs, **named)
        bound.apply_defaults()
        return self.key_of(dict(bound.arguments))

    def cached(self, *inputs: Any, **named: Any) -> Any | None:
        """The result for these arguments if it is cached and whole; nothing is run."""
        key = self.key(*inputs, **named)
        if not has_result(key):
            return None
        try:
            return ResultStore(result_storage=self.result_storage).read(key).result
        except (MissingArtifact, ValueError):
            return None  # As for a run: what cannot be read or verified counts as absent.

    def recall(self, *inputs: Any) -> Any:
        """The result for these inputs without a run: from the cache, else computed and not kept.

        For commands that only look, and should not wait for Prefect to start. Only for stages
        that may be computed at any time: that cost little, and nothing in money.
        """
        with disable_run_logger():
            return self.cached(*inputs) or self.fn(*inputs)

    def afresh(self) -> "Stage":
        """The same stage, which takes nothing from the cache and replaces what is there."""
        again = copy(self)
        again.refresh_cache = True
        return again


class KernelFileLocks(LockManager):
    """One lock file per key, held by the kernel, so that a killed process leaves no lock.

    Prefect's `FileSystemLockManager` keeps its locks as plain files, which outlive a kill.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, FileLock]] = {}
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._held, self._guard = {}, threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "KernelFileLocks":
        return self

    def _lock(self, key: str) -> FileLock:
        folder = data_dir() / "locks"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{Path(key).name}.lock", thread_local=False)

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,  # noqa: ARG002 - the kernel holds it until release
    ) -> bool:
        """Wait for the key's lock, at most `acquire_timeout` seconds; False if it stays busy."""
        if self.is_lock_holder(key, holder):
            return True
        lock = self._lock(key)
        try:
            lock.acquire(timeout=-1 if acquire_timeout is None else acquire_timeout)
        except Timeout:
            return False
        with self._guard:
            self._held[key] = (holder, lock)
        return True

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """`acquire_lock` for Prefect's asynchronous engine; stages themselves are synchronous."""
        return self.acquire_lock(key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Release the key's lock if `holder` has it."""
        with self._guard:
            held_by, lock = self._held.get(key, (None, None))
            if lock is None or held_by != holder:
                raise ValueError(f"{holder} does not hold the lock of {key}")
            del self._held[key]
        lock.release()

    def is_locked(self, key: str) -> bool:
        """True if any process holds the key's lock."""
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """True if `holder` took the key's lock in this process."""
        with self._guard:
            return self._held.get(key, (None, None))[0] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until the key's lock is free; False after `timeout` seconds."""
        lock = self._lock(key)
        try:
            lock.acquire(timeout=-1 if timeout is None else timeout)
        except Timeout:
            return False
        lock.release()
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """`wait_for_lock` for Prefect's asynchronous engine."""
        return self.wait_for_lock(key, timeout)


def content(value: Any) -> Any:
    """The JSON-ready form of a task's input, in which artifacts stand for their content."""
    if isinstance(value, Handle):
        return value.sha256
    if isinstance(value, Section):
        return value.identity()
    if isinstance(value, BaseModel):
        return {
            name: content(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if field.json_schema_extra != NOT_IDENTITY
        }
    if isinstance(value, Mapping):
        return {str(key): content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    return value


def cache_key(name: str, version: int, inputs: Mapping[str, Any]) -> str:
    """Readable key: `name-vVERSION-` and 32 hex digits of the inputs' sha256."""
    canonical = json.dumps(content(inputs), sort_keys=True, default=str)
    return f"{name}-v{version}-{hashlib.sha256(canonical.encode()).hexdigest()[:32]}"


def stage(
    name: str,
    version: int,
    *,
    ignore: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    **options: Any,
) -> Callable[[F], Stage]:
    """Make a function a cached stage.

    Args:
        name: the stage's name in keys, in Prefect and in `llmkt run --json`.
        version: raise it when the code's meaning changes, so that old results are not reused.
        ignore: parameters that cannot change the result and so stay out of the key.
        optional: parameters that stay out of the key while they are None, so that a parameter
            added later leaves old results valid.
        options: passed on to `prefect.task`.
    """

    def key_of(inputs: Mapping[str, Any]) -> str:
        deciding = {
            key: value
            for key, value in inputs.items()
            if key not in ignore and not (key in optional and value is None)
        }
        return cache_key(name, version, deciding)

    def key(_: TaskRunContext, inputs: dict[str, Any]) -> str:
        return key_of(inputs)

    policy = CacheKeyFnPolicy(cache_key_fn=key).configure(
        isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=KernelFileLocks()
    )

    def decorate(function: F) -> Stage:
        made = Stage(
            function,
            name=name,
            cache_policy=policy,
            persist_result=True,
            cache_result_in_memory=False,
            result_serializer=VerifiedJSON(),
            **options,
        )
        made.key_of = key_of
        return made

    return decorate


def always(name: str, **options: Any) -> Callable[[F], Stage]:
    """Make a function a stage that runs every time, since it changes what others see."""

    def decorate(function: F) -> Stage:
        return Stage(function, name=name, cache_policy=NO_CACHE, persist_result=False, **options)

    return decorate
