"""One meaning of running a stage: once for each input, and in a dry run not at all unless cheap."""

import pytest

from flows.steps.stage_runner import CachedStages, NotCached, StageRunner
from models.errors import BadInput
from tasks.execution.stage import always, stage

pytestmark = pytest.mark.usefixtures("data_dir")

CALLS: list[int] = []


@stage("halving", version=1, cheap=True)
def halving(number: int) -> int:
    """Half of an even number."""
    CALLS.append(number)
    if number % 2:
        raise BadInput(f"{number} is odd")
    return number // 2


@stage("paying", version=1)
def paying(number: int) -> int:
    """Costs money, so no dry run computes it."""
    CALLS.append(number)
    return number


@always("publishing")
def publishing(number: int) -> int:
    """Changes what others see."""
    CALLS.append(number)
    return number


class Plain(StageRunner):
    """Stages without Prefect."""

    def _run(self, stage, inputs, side):  # noqa: ARG002
        return stage.fn(*inputs)


@pytest.fixture(autouse=True)
def calls():
    CALLS.clear()
    return CALLS


def test_equal_inputs_are_computed_once_and_a_failure_is_raised_each_time(calls):
    stages = Plain()
    assert [stages.run(halving, number) for number in (4, 6, 4)] == [2, 3, 2]
    for _ in range(2):
        with pytest.raises(BadInput, match="7 is odd"):
            stages.run(halving, 7)
    assert calls == [4, 6, 7]


def test_a_stage_that_changes_what_others_see_runs_every_time(calls):
    stages = Plain()
    assert [stages.run(publishing, 1) for _ in range(2)] == [1, 1]
    assert calls == [1, 1]


def test_a_dry_run_computes_cheap_stages_alone(calls):
    stages = CachedStages(dry=True)
    assert [stages.run(halving, 8) for _ in range(2)] == [4, 4]
    with pytest.raises(NotCached, match="paying"):
        stages.run(paying, 8)
    assert calls == [8]
    assert stages.records == []


def test_a_dry_run_takes_what_is_cached(calls, monkeypatch):
    monkeypatch.setattr(paying, "cached", lambda number: 10 * number)
    assert CachedStages(dry=True).run(paying, 8) == 80
    assert calls == []
