"""Runs stages, each different one once, and records how each went."""

import json
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, TypeVar

from prefect import State
from prefect.settings import get_current_settings

from models.config import Job, Side
from tasks.embeddings.outputs import Embedded
from tasks.execution.stage import Stage, StageRecord, StageState
from tasks.profiles.outputs import Profiled
from tasks.training.outputs import Trained

T = TypeVar("T")


class NotCached(Exception):
    """A result is needed that no run has left, where none may be computed."""


class StageRunner:
    """Runs each different stage once, however many points need it, and records how it went."""

    def __init__(self) -> None:
        self.records: list[StageRecord] = []
        self._done: dict[str, Any] = {}

    def run(self, stage: Stage, *inputs: Any, side: Side | None = None) -> Any:
        """The result of a stage; its exception, if any, is raised here, every time."""
        return self.once(stage.key(*inputs), lambda: self._run(stage, inputs, side))

    def once(self, question: object, compute: Callable[[], T]) -> T:
        """The result of a computation that is made, or fails, once for each question (JSON)."""
        key = json.dumps(question, sort_keys=True, default=str)
        if key not in self._done:
            try:
                self._done[key] = compute()
            except Exception as error:
                self._done[key] = error
        result = self._done[key]
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]

    def _run(self, stage: Stage, inputs: tuple[Any, ...], side: Side | None) -> Any:
        began = perf_counter()
        state: State[Any] = stage(*inputs, return_state=True)  # type: ignore[assignment]
        result = state.result()
        if state.name == "Cached" and isinstance(result, Profiled) and result.unfinished:
            state = stage.afresh()(*inputs, return_state=True)  # type: ignore[assignment]
            result = state.result()
        self._record(stage, side, _state_of(state, result), began)
        return result

    def _record(self, stage: Stage, side: Side | None, state: StageState, began: float) -> None:
        seconds = round(perf_counter() - began, 3)
        self.records.append(StageRecord(name=stage.name, side=side, state=state, seconds=seconds))

    def computed(self, name: str) -> set[Side | None]:
        """The sides for which a stage computed something, rather than take all from the cache."""
        return {
            record.side
            for record in self.records
            if record.name == name and record.state != "cached"
        }

    def add_trainings(self, trainings: Iterable[tuple[Job, bool, Trained | Exception]]) -> None:
        """Record `TrainingPool.ended()`: one entry per model and arm, over all seeds."""
        arms: dict[tuple[str, str], list[tuple[bool, Trained | Exception]]] = {}
        for job, cached, result in trainings:
            arms.setdefault((job.model, job.arm), []).append((cached, result))
        for (model, arm), runs in arms.items():
            ran = [result for cached, result in runs if not cached]
            whole: StageState = "ran" if ran else "cached"
            state: StageState = "partial" if 0 < len(ran) < len(runs) else whole
            seconds = sum(result.train_seconds for result in ran if isinstance(result, Trained))
            self.records.append(
                StageRecord(
                    name="training", model=model, arm=arm, state=state, seconds=round(seconds, 3)
                )
            )


class CachedStages(StageRunner):
    """Finds every result in the cache, without a run; NotCached where one would compute any.

    Those of a dry run compute cheap stages, of which they keep no record.
    """

    def __init__(self, dry: bool = False) -> None:
        super().__init__()
        self._dry = dry

    def _run(self, stage: Stage, inputs: tuple[Any, ...], side: Side | None) -> Any:
        if self._dry and stage.cheap:
            return stage.recall(*inputs)
        began = perf_counter()
        asked = get_current_settings().tasks
        old = not (asked.refresh_cache or asked.disable_caching)
        found = stage.cached(*inputs) if old else None
        if found is None or (isinstance(found, Profiled) and found.unfinished):
            raise NotCached(stage.name)
        self._record(stage, side, "cached", began)
        return found


def _state_of(state: State[Any], result: Any) -> StageState:
    if state.name == "Cached":
        return "cached"
    reused = isinstance(result, Profiled) and result.answers_cached
    reused = reused or (isinstance(result, Embedded) and result.texts_cached)
    return "partial" if reused else "ran"
