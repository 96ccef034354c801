"""When a stage may be skipped: keys by content, verified results, kill-safe locks.

A key is the task's name, its version and the sha256 of its inputs, with artifact handles
standing for their content and configuration sections for the fields that decide the result.
A cached result counts only while every artifact behind it is there, unaltered.
"""

import inspect
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from typing import Any, Literal, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.logging import disable_run_logger
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.transactions import IsolationLevel
from pydantic import BaseModel

from models.config import Side
from tasks.execution.cache_key import cache_key
from tasks.execution.file_locks import KernelFileLocks
from tasks.storage.artifacts import MissingArtifact, Verifiable
from tasks.storage.prefect_results import result_storage

F = TypeVar("F", bound=Callable[..., Any])


StageState = Literal["ran", "cached", "partial"]


class StageRecord(BaseModel):
    """How a stage went: computed, taken from the cache, or some of both."""

    name: str
    side: Side | None = None
    model: str | None = None
    arm: str | None = None
    state: StageState
    seconds: float


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
    """A task whose results live under the data folder, wherever that is when the task runs."""

    key_of: Callable[[Mapping[str, Any]], str]
    """The cache key of a call, given its arguments by name."""
    cheap: bool = False
    """Whether a command that only looks may compute it: in seconds, and for no money."""

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
        try:
            return self._results().read(self.key(*inputs, **named)).result
        except (MissingArtifact, ValueError):
            return None  # as for a run: absent, or not to be read or verified

    def recall(self, *inputs: Any, keep: bool = False) -> Any:
        """The result for these inputs without a run: from the cache, else computed.

        For commands that only look, and should not wait for Prefect to start. Only for stages
        that may be computed at any time: that cost little, and nothing in money. What is computed
        is forgotten, or kept if the disk takes it.
        """
        found = self.cached(*inputs)
        if found is None:
            with disable_run_logger():
                found = self.fn(*inputs)
            if keep:
                with suppress(ValueError, OSError):  # BadInput is the first
                    self._results().write(found, self.key(*inputs))
        return found

    def _results(self) -> ResultStore:
        return ResultStore(result_storage=self.result_storage, serializer=VerifiedJSON())

    def afresh(self) -> "Stage":
        """The same stage, which takes nothing from the cache and replaces what is there."""
        again = copy(self)
        again.refresh_cache = True
        return again


def stage(
    name: str,
    version: int,
    *,
    ignore: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    cheap: bool = False,
    **options: Any,
) -> Callable[[F], Stage]:
    """Make a function a cached stage.

    Args:
        name: the stage's name in keys, in Prefect and in `llmkt run --json`.
        version: raise it when the code's meaning changes, so that old results are not reused.
        ignore: parameters that cannot change the result and so stay out of the key.
        optional: parameters that stay out of the key while they are None.
        cheap: see `Stage`.
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
        made.key_of, made.cheap = key_of, cheap
        return made

    return decorate


def always(name: str, **options: Any) -> Callable[[F], Stage]:
    """Make a function a stage that runs every time, since it changes what others see."""

    def decorate(function: F) -> Stage:
        made = Stage(function, name=name, cache_policy=NO_CACHE, persist_result=False, **options)
        made.key_of = lambda _: f"{name}-{uuid.uuid4().hex}"
        return made

    return decorate
