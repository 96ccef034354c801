"""Keeping a run's spend within its budget: no request is sent whose highest cost does not fit."""

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from models.llm.pricing import Tariff


@dataclass
class Budget:
    """What a run may spend in US dollars, what it has spent, and what is reserved."""

    limit: float
    tariff: Tariff
    longest_answer: int = 0
    """In tokens."""
    spent: float = 0.0
    reserved: float = 0.0
    exhausted: bool = False
    """True once an amount did not fit though no reservation was open."""
    _open: int = 0
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    def highest_cost(self, body: dict[str, Any]) -> float:
        """Return what a request with this body may cost, in US dollars."""
        size = len(json.dumps(body, ensure_ascii=False).encode())
        return self.tariff.highest_cost(size, self.longest_answer)

    def fits(self, amount: float) -> bool:
        """Reserve `amount` if it fits."""
        if self.spent + self.reserved + amount > self.limit:
            return False
        self.reserved += amount
        return True

    async def reserve(self, amount: float) -> "Reservation | None":
        """Reserve `amount` once it fits, after waiting for others; None if it never will."""
        while not self.fits(amount):
            if not self._open:
                self.exhausted = True
                return None
            self._closed.clear()
            await self._closed.wait()
        self._open += 1
        return Reservation(self, amount, amount)

    def charge(self, reserved: float, spent: float) -> None:
        """Replace a reserved amount by what was spent."""
        self.reserved -= reserved
        self.spent += spent


@dataclass
class Reservation:
    """The money of one request and of its repetitions by the client.

    A request that times out or whose connection is lost may be billed all the same, so it
    counts in full, beside the one that replaces it.
    """

    budget: Budget
    highest_cost: float
    reserved: float
    unanswered: int = 0
    """Requests that were sent and have not been answered."""

    def sent(self) -> bool:
        """Note a request; False if it replaces a lost one and does not fit, and must not go."""
        if self.unanswered:
            if not self.budget.fits(self.highest_cost):
                return False
            self.reserved += self.highest_cost
        self.unanswered += 1
        return True

    def answered(self) -> None:
        """Note an answer, of whatever kind."""
        self.unanswered -= 1

    def close(self, spent: float | None) -> None:
        """Charge what the answer cost; None if it does not say, and so counts in full."""
        spent = self.highest_cost if spent is None else spent
        self.budget.charge(self.reserved, spent + self.unanswered * self.highest_cost)
        self.budget._open -= 1
        self.budget._closed.set()


current_reservation: ContextVar[Reservation | None] = ContextVar("reservation", default=None)
"""What the current question may cost, for the HTTP client, which sees each of its requests."""
