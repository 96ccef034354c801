"""Staying under an endpoint's requests and tokens per minute: token buckets on a monotonic clock.

A bucket holds one second's worth, so that no minute sees noticeably more than the limit. It may
be overdrawn: a caller that takes too much waits until the debt is paid, first come, first served.
"""

import asyncio
import time
from dataclasses import dataclass

BURST_SECONDS = 1.0
CHARACTERS_PER_TOKEN = 4
"""OpenAI's own rule of thumb for English; its limits, too, are charged by estimate."""


class Bucket:
    """What may be spent now, refilled at `per_minute`; None is no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._per_second = (per_minute or 0.0) / 60
        self._available = self._most = max(1.0, self._per_second * BURST_SECONDS)
        self._refilled_at = time.monotonic()

    def add(self, amount: float) -> None:
        """Refill for the time since the last call, and add `amount`; less than zero overdraws."""
        now = time.monotonic()
        gained = (now - self._refilled_at) * self._per_second
        self._available, self._refilled_at = min(self._most, self._available + gained), now
        self._available = min(self._most, self._available + amount)

    async def take(self, amount: float) -> None:
        """Spend `amount`, then wait until the bucket is out of debt, if it is in any."""
        self.add(-amount)
        if self._per_second and self._available < 0:
            await asyncio.sleep(-self._available / self._per_second)


@dataclass
class Limits:
    """Both limits of an endpoint, and the tokens of the longest answer allowed."""

    requests: Bucket
    tokens: Bucket
    longest_answer: int

    def estimate(self, content: bytes) -> int:
        """Return the tokens that a request may cost: its text, and the longest answer."""
        return len(content) // CHARACTERS_PER_TOKEN + self.longest_answer

    async def admit(self, content: bytes) -> None:
        """Wait until a request with this body may be sent; each retry is a request, too."""
        await self.requests.take(1)
        await self.tokens.take(self.estimate(content))

    def correct(self, content: bytes, used: int | None) -> None:
        """Replace the estimate for an answered request by the endpoint's count, if it has one.

        A count of more than twice the estimate is not believed: it could stop the run for hours.
        """
        if used is not None:
            estimate = self.estimate(content)
            self.tokens.add(max(estimate - used, -estimate))
