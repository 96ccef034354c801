"""Rate limits: on a clock of the test's own, and over real HTTP."""

import asyncio
from types import SimpleNamespace

import pytest

from tasks.llm import rate_limit
from tasks.llm.rate_limit import Bucket, Limits
from tests.support.fake_llm import config, failure, run

pytest_plugins = ("tests.support.fake_llm",)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def taken(bucket: Bucket, clock: Clock, *amounts: float) -> list[float]:
    """When each amount was had, one after the other."""

    async def take() -> list[float]:
        times = []
        for amount in amounts:
            await bucket.take(amount)
            times.append(round(clock.now - 100, 6))
        return times

    return asyncio.run(take())


@pytest.fixture
def clock(monkeypatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(rate_limit, "time", SimpleNamespace(monotonic=own))
    monkeypatch.setattr(rate_limit, "asyncio", SimpleNamespace(sleep=own.sleep))
    return own


def test_a_second_s_worth_is_free_and_the_rest_comes_at_the_rate(clock):
    assert taken(Bucket(120), clock, *[1] * 6) == [0, 0, 0.5, 1.0, 1.5, 2.0]


def test_slow_rates_still_let_one_through_at_once(clock):
    assert taken(Bucket(6), clock, 1, 1, 1) == [0, 10, 20]


def test_more_than_a_bucket_holds_is_paid_off(clock):
    assert taken(Bucket(600), clock, 30, 1) == [2.0, 2.1]


def test_idle_time_fills_no_more_than_the_bucket(clock):
    limited = Bucket(120)
    taken(limited, clock, 1, 1)
    clock.now += 3600
    began = clock.now - 100
    assert taken(limited, clock, *[1] * 3) == [began, began, began + 0.5]


def test_no_minute_sees_more_than_the_limit_and_its_burst(clock):
    limited = Bucket(60)
    times = taken(limited, clock, *[1] * 300)
    for start in times:
        assert sum(start <= time < start + 60 for time in times) <= 61


def test_waiting_tasks_are_served_in_order():
    limited, order = Bucket(6000), []

    async def one(number: int) -> None:
        await limited.take(20)
        order.append(number)

    async def together() -> None:
        await asyncio.gather(*(one(number) for number in range(10)))

    asyncio.run(together())
    assert order == list(range(10))


def test_an_estimate_is_settled_by_what_was_used(clock):
    tokens = Bucket(6000)
    limits = Limits(Bucket(None), tokens, longest_answer=400)
    body = b"x" * 800

    async def two(used: int | None) -> float:
        began = clock.now
        await limits.admit(body)
        limits.correct(body, used)
        await limits.admit(body)
        return clock.now - began

    # 600 tokens are estimated of which 100 are in the bucket, at 100 a second.
    assert asyncio.run(two(None)) == pytest.approx(11.0)
    clock.now += 60
    assert asyncio.run(two(50)) == pytest.approx(5.0 + 5.0)


@pytest.mark.usefixtures("data_dir")
def test_requests_and_their_retries_keep_to_the_limit(llm):
    llm.script["Heat"] = [lambda _: failure(500)] * 2
    titles = ["Heat", "Fargo", "Alien", "Brazil"]
    assert run(config(llm, requests_per_minute=300, concurrency=8), *titles).missing == 0
    # 6 requests: 5 at once, then one each 0.2 s.
    assert len(llm.requests) == 6
    assert max(llm.times) - min(llm.times) >= 0.15
    run(config(llm, requests_per_minute=120, concurrency=8, seed=9), *titles)
    times = sorted(llm.times[6:])
    # Here it is two at once and one each 0.5 s; a loaded machine may only be slower.
    assert times[-1] - times[0] >= 0.6


@pytest.mark.usefixtures("data_dir")
def test_tokens_keep_to_the_limit_and_to_what_was_used(llm):
    titles = ["Heat", "Fargo", "Alien"]
    run(config(llm, tokens_per_minute=60_000, max_tokens=1000, concurrency=1), *titles)
    # About 1,050 tokens are estimated at 1,000 a second, and 14 are used each time.
    times = sorted(llm.times)
    assert times[-1] - times[0] < 1.9
    run(config(llm, tokens_per_minute=60_000, max_tokens=1000, concurrency=3, seed=9), *titles)
    times = sorted(llm.times[3:])
    assert times[-1] - times[0] > 1.0
