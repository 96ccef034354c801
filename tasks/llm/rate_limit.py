"""Staying under an endpoint's requests and tokens per minute: token buckets on a monotonic clock.

A bucket holds one second's worth, so that no minute sees noticeably more than the limit, and
may be overdrawn: whoever takes too much waits until the debt is paid, first come, first served.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

BURST_SECONDS = 1.0
CHARACTERS_PER_TOKEN = 4
"""OpenAI's own rule of thumb for English; its limits, too, are charged by estimate."""


@dataclass
class Bucket:
    """What may be spent now, refilled at `per_minute`."""

    per_minute: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    available: float = field(init=False)
    refilled_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.available = self._most
        self.refilled_at = self.clock()

    @property
    def _most(self) -> float:
        return max(1.0, self.per_minute / 60 * BURST_SECONDS)

    def _refill(self) -> None:
        now = self.clock()
        gained = (now - self.refilled_at) * self.per_minute / 60
        self.available = min(self._most, self.available + gained)
        self.refilled_at = now

    async def take(self, amount: float) -> None:
        """Spend `amount`, then wait until the bucket is out of debt, if it is in any."""
        self._refill()
        self.available -= amount
        if self.available < 0:
            await self.sleep(-self.available * 60 / self.per_minute)

    def give_back(self, amount: float) -> None:
        """Correct an estimate: below zero takes more, of which those who come later wait."""
        self._refill()
        self.available = min(self._most, self.available + amount)


@dataclass
class Limits:
    """Both limits of an endpoint; None is no limit."""

    requests: Bucket | None
    tokens: Bucket | None
    longest_answer: int

    def estimate(self, content: bytes) -> int:
        """Tokens that a request may cost: its text, and the longest answer allowed."""
        return len(content) // CHARACTERS_PER_TOKEN + self.longest_answer

    async def admit(self, content: bytes) -> None:
        """Wait until a request with this body may be sent; each retry is a request, too."""
        if self.requests is not None:
            await self.requests.take(1)
        if self.tokens is not None:
            await self.tokens.take(self.estimate(content))

    def settle(self, content: bytes, used: int | None) -> None:
        """Replace the estimate for an answered request by what the endpoint counted."""
        if self.tokens is not None and used is not None:
            self.tokens.give_back(self.estimate(content) - used)
