"""Runs stages and keeps a record of each, for the terminal and for machines."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from prefect import State

from models.config import Job, Side
from tasks.dataset.interactions_task import interactions
from tasks.dataset.split_task import split
from tasks.embeddings.outputs import Embedded
from tasks.execution.stage import Stage
from tasks.execution.stage_record import StageRecord, StageState
from tasks.profiles.outputs import Profiled
from tasks.training.outputs import Trained


class Stages:
    """Runs stages one after the other and keeps a record of each."""

    def __init__(self) -> None:
        self.records: list[StageRecord] = []

    def run(self, stage: Stage, *inputs: Any, side: Side | None = None) -> Any:
        """Run a stage here; its exception, if any, is raised here too.

        Args:
            stage: the stage.
            inputs: its arguments.
            side: whom it concerns, for the record.
        """
        began = perf_counter()
        state: State[Any] = stage(*inputs, return_state=True)  # type: ignore[assignment]
        result = state.result()
        if state.name == "Cached" and isinstance(result, Profiled) and result.unfinished:
            state = stage.afresh()(*inputs, return_state=True)  # type: ignore[assignment]
            result = state.result()
        self.records.append(
            StageRecord(
                name=stage.name,
                side=side,
                state=_state_of(state, result),
                seconds=round(perf_counter() - began, 3),
            )
        )
        return result

    def computed(self, name: str) -> set[Side | None]:
        """The sides of which a stage has done something, rather than come from the cache."""
        return {of.side for of in self.records if of.name == name and of.state != "cached"}

    def add_trainings(self, trained: Sequence[tuple[Job, State[Trained], Trained]]) -> None:
        """Record trainings that ran elsewhere: one entry per model and arm, over all seeds."""
        self.add_ended([(job, state.name == "Cached", result) for job, state, result in trained])

    def add_ended(self, trained: Sequence[tuple[Job, bool, Trained | Exception]]) -> None:
        """As `add_trainings`, of trainings that are known to be cached or not, or failed."""
        arms: dict[tuple[str, str], list[tuple[bool, Trained | Exception]]] = {}
        for job, cached, result in trained:
            arms.setdefault((job.model, job.arm), []).append((cached, result))
        for (model, arm), runs in arms.items():
            ran = [result for cached, result in runs if not cached]
            state: StageState = "cached" if not ran else "ran"
            if 0 < len(ran) < len(runs):
                state = "partial"
            seconds = sum(of.train_seconds for of in ran if isinstance(of, Trained))
            self.records.append(
                StageRecord(
                    name="training", model=model, arm=arm, state=state, seconds=round(seconds, 3)
                )
            )


def _state_of(state: State[Any], result: Any) -> StageState:
    if state.name == "Cached":
        return "cached"
    reused = {Profiled: "answers_cached", Embedded: "texts_cached"}
    field = next((reused[kind] for kind in reused if isinstance(result, kind)), None)
    return "partial" if field and getattr(result, field) else "ran"


class NotCached(Exception):
    """What was asked for has not been computed yet."""


class SharedStages(Stages):
    """Runs each different stage once, however many points need it."""

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[str, Any] = {}

    def run(self, stage: Stage, *inputs: Any, side: Any = None) -> Any:
        """Run a stage, or hand back, or raise, what came of it before."""
        key = stage.key(*inputs)
        if key not in self._done:
            try:
                self._done[key] = super().run(stage, *inputs, side=side)
            except Exception as error:
                self._done[key] = error
        found = self._done[key]
        if isinstance(found, Exception):
            raise found
        return found


class Peeking(Stages):
    """Finds what stages made before, and runs none but those that only read files."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, Any] = {}

    def run(self, stage: Stage, *inputs: Any, side: Any = None) -> Any:  # noqa: ARG002
        """The cached result; raises `NotCached` where there is none."""
        key = stage.key(*inputs)
        if key not in self._found:
            cheap = stage in (interactions, split)
            self._found[key] = stage.recall(*inputs) if cheap else stage.cached(*inputs)
        if self._found[key] is None:
            raise NotCached(stage.name)
        return self._found[key]
