"""What answers cost, and a spend that stops before it passes the budget."""

import asyncio
from pathlib import Path

import pytest
from prefect import flow
from werkzeug import Response

from flows.steps.stage_runner import StageRunner
from models.errors import BadInput
from models.llm.pricing import Price, Tariff
from tasks.llm.budget import Budget
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import read_parquet
from tests.support.fake_batch_api import FakeBatches, answered, body_of, title
from tests.support.fake_batch_api import config as batch_config
from tests.support.fake_llm import (
    TEMPLATE,
    FakeLLM,
    completion,
    config,
    data,
    failure,
    reasons,
    run,
    slow,
)

pytest_plugins = ("tests.support.fake_llm", "tests.support.fake_batch_api")
pytestmark = pytest.mark.usefixtures("data_dir")

# Every answer of the fakes has 4 tokens, a dollar each; the longest allowed has 16. In a batch
# that is 2 and 8 dollars. Prompts cost nothing.
TABLE = """
date: 2026-01-02
prices: {dear: {input_per_million: 0, output_per_million: 1000000}}
"""
TITLES = ("Heat", "Fargo", "Alien", "Brazil", "Crash")


@pytest.fixture
def dear(tmp_path: Path) -> dict[str, object]:
    """Settings of a model with a price that is easy to calculate with."""
    (tmp_path / "prices.yaml").write_text(TABLE)
    prices = str(tmp_path / "prices.yaml")
    return {"model": "dear", "max_tokens": 16, "prices": prices}


def test_a_bound_holds_text_and_longest_answer():
    tariff = Tariff(Price(input_per_million=3, output_per_million=2))
    # 10 bytes are at most 4 tokens: 4 · 3 + 100 · 2 = 212 dollars per million.
    assert tariff.highest_cost(10, 100) == pytest.approx(212e-6)
    assert Tariff(tariff.price, batch=True).highest_cost(10, 100) == pytest.approx(106e-6)
    assert Tariff(None).cost(1, 1) is None
    assert tariff.cost(1, None) is None


def test_unusable_answers_and_repetitions_are_on_the_bill(llm, dear):
    llm.script = {"Heat": [lambda _: completion("")] * 2, "Fargo": [lambda _: failure(500)]}
    result = run(config(llm, **dear), "Heat", "Fargo")
    assert sorted(read_parquet(result.calls)["cost_usd"].to_pylist()) == [4, 12]
    assert result.cost_usd == 16
    assert run(config(llm, **dear), "Heat", "Fargo").cost_usd == 0


def test_what_was_asked_in_vain_is_paid_for_with_what_is_asked_again(llm, dear):
    llm.script = {"Heat": [lambda _: completion("")] * 3}
    with pytest.raises(BadInput, match="1 empty"):
        run(config(llm, **dear), "Heat", "Fargo")
    result = run(config(llm, **dear), "Heat", "Fargo")
    assert result.cost_usd == 5 * 4


@pytest.mark.parametrize("settings", [{"model": "local"}, {"model": "dear-pro"}])
def test_a_model_without_a_price_has_no_known_cost_and_no_budget(llm, dear, settings):
    result = run(config(llm, **dear | settings), "Heat")
    assert result.cost_usd is None
    assert read_parquet(result.calls)["cost_usd"].to_pylist() == [None]
    limited = config(llm, **dear | settings | {"budget_usd": 5})
    with pytest.raises(BadInput, match=r"budget_usd is set, but the price of model .*prices.yaml"):
        run(limited, "Heat", "Fargo")
    assert llm.titles() == {"Heat": 1}
    run(limited, "Heat")  # nothing to pay for


def test_answers_without_a_count_have_no_known_cost(llm, dear):
    llm.default = lambda _: Response(
        '{"choices": [{"message": {"content": "Fine."}, "finish_reason": "stop"}]}',
        content_type="application/json",
    )
    assert run(config(llm, **dear), "Heat").cost_usd is None


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    ("budget", "answers"),
    # The n-th question is asked if 4 (n - 1) + 16 fits.
    [(16, 1), (19.9, 1), (21, 2), (27.9, 3), (32, 5)],
)
def test_asking_stops_before_the_budget_is_passed(llm, dear, budget, answers, concurrency):
    settings = config(llm, 1.0, budget_usd=budget, concurrency=concurrency, **dear)
    result = run(settings, *TITLES)
    assert len(llm.requests) == answers
    assert result.cost_usd == 4 * answers <= budget
    assert result.unasked == 5 - answers == result.missing
    assert sorted(map(str, reasons(result))) == ["None"] * answers + ["not asked"] * (5 - answers)


def test_too_small_a_budget_says_what_is_spent_and_left_and_loses_nothing(llm, dear):
    settings = config(llm, 0.5, budget_usd=21, concurrency=1, **dear)
    with pytest.raises(BadInput) as error:
        run(settings, *TITLES)
    message = str(error.value)
    assert "3 of 5 profiles (60.0%) are missing: 3 not asked. Of" in message
    assert "budget_usd, 21 USD, 8 are spent on 2 answers" in message
    assert "3 questions are left, about 12, at most 48 USD" in message
    assert "Run again: the answers received are kept, so only the others are asked for" in message
    with pytest.raises(BadInput, match="0 are spent on 0 answers; 3 questions are left, at most"):
        run(config(llm, 0.0, budget_usd=15, **dear), *TITLES)
    result = run(config(llm, **dear), *TITLES)
    assert llm.titles() == dict.fromkeys(TITLES, 1)
    assert (result.missing, result.cost_usd) == (0, 20)


def test_an_unusable_answer_is_not_asked_again_without_money(llm, dear):
    llm.script = {"Heat": [lambda _: completion("")] * 3}
    result = run(config(llm, 1.0, budget_usd=17, concurrency=1, **dear), "Heat", "Fargo")
    assert reasons(result) == ["empty", "not asked"]
    assert llm.titles() == {"Heat": 1}
    assert result.cost_usd == 4


@pytest.mark.parametrize(
    ("budget", "retries", "heat", "fargo"),
    [
        (21, 0, 1, 0),  # lost: 16, and 16 more do not fit
        (36, 0, 1, 1),
        (31, 3, 1, 0),  # the client's own repetition does not fit either
        (47, 1, 2, 0),  # lost twice: 32
        (48, 1, 2, 1),
    ],
)
def test_a_lost_request_counts_in_full_for_it_may_be_billed(
    llm, dear, budget, retries, heat, fargo
):
    llm.script = {"Heat": [slow(1.6)] * 9}
    limits = {"budget_usd": budget, "concurrency": 1, "max_retries": retries}
    run(config(llm, 1.0, timeout_seconds=0.8, **limits, **dear), "Heat", "Fargo")
    assert llm.titles()["Heat"] == heat
    assert llm.titles()["Fargo"] == fargo


def test_a_refused_request_costs_nothing(llm, dear):
    llm.script = {"Heat": [lambda _: failure(429), lambda _: failure(500)] * 2}
    result = run(config(llm, budget_usd=20, concurrency=1, **dear), "Heat", "Fargo")
    assert (result.missing, result.cost_usd) == (0, 8)


def test_a_batch_is_weighed_before_it_is_submitted(batches: FakeBatches, dear):
    settings = batch_config(batches, 0.5, budget_usd=23.9, **dear)
    with pytest.raises(BadInput, match="3 questions are left, at most 24 USD"):
        run(settings, *TITLES[:3])
    assert batches.log == []
    result = run(batch_config(batches, budget_usd=24, **dear), *TITLES[:3])
    assert (result.missing, result.cost_usd) == (0, 6)
    assert read_parquet(result.calls)["cost_usd"].to_pylist() == [2, 2, 2]


@pytest.mark.parametrize(("budget", "submitted"), [(24, 2), (8, 1), (7, 0)])
def test_what_a_batch_cost_is_known_before_the_next(batches: FakeBatches, dear, budget, submitted):
    # One question: 8 reserved, 2 spent for an empty answer, 8 more for asking again.
    batches.rule = lambda row, n: answered(row, None if n else body_of(""))
    run(batch_config(batches, 1.0, budget_usd=budget, **dear), "Heat")
    assert len(batches.batches) == submitted
    assert all(title(row) == "Heat" for name in batches.batches for row in batches.rows(name))


def test_a_batch_of_an_earlier_run_is_collected_without_a_budget(batches: FakeBatches, dear):
    batches.polls = 10**9
    with pytest.raises(BadInput, match="in_progress"):
        run(batch_config(batches, batch_wait_hours=0, **dear), *TITLES)
    batches.polls = 1
    result = run(batch_config(batches, budget_usd=1, **dear), *TITLES)
    assert (result.missing, result.cost_usd) == (0, 10)


def test_a_run_that_stopped_for_its_budget_does_not_count_for_the_next(
    llm: FakeLLM, dear, prefect_server
):
    assert prefect_server
    handles = data(*TITLES)

    @flow
    def asked(budget: float | None):
        stages = StageRunner()
        settings = config(llm, 1.0, budget_usd=budget, concurrency=1, **dear)
        result = stages.run(profiles, settings, TEMPLATE, *handles)
        return [result.missing, stages.records[0].state]

    assert asked(21) == [3, "ran"]
    assert asked(21) == [1, "partial"]  # the budget is each run's own
    assert asked(None) == [0, "partial"]
    assert asked(21) == [0, "cached"]
    assert llm.titles() == dict.fromkeys(TITLES, 1)


def test_a_question_waits_for_what_is_in_flight():
    async def race() -> list[float]:
        budget = Budget(20, Tariff(Price(input_per_million=0, output_per_million=1)))
        first = await budget.reserve(16)
        assert first
        second = asyncio.create_task(budget.reserve(16))
        await asyncio.sleep(0)
        assert not second.done()
        first.close(4)
        second_reserved = await second
        assert second_reserved
        third = asyncio.create_task(budget.reserve(16))
        second_reserved.close(None)
        assert await third is None
        return [budget.spent, budget.reserved]

    assert asyncio.run(race()) == [20, 0]
