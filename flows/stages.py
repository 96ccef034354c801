"""Runs stages and keeps a record of each, for the terminal and for machines."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from prefect import State

from models.config import Job, Side
from tasks.caching import Stage
from tasks.handoffs import Embedded, Profiled, Trained
from tasks.records import StageRecord, StageState


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
