"""Keeping a run's spend within its budget: nothing is sent whose bound no longer fits."""

import asyncio
from dataclasses import dataclass, field

from models.llm.pricing import Tariff


@dataclass
class Budget:
    """What a run may spend, in US dollars, what it has, and what is in flight at its bound."""

    limit: float
    tariff: Tariff
    spent: float = 0.0
    reserved: float = 0.0
    exhausted: bool = False
    """True once something did not fit, though nothing was in flight."""
    _flights: int = 0
    _landed: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, amount: float) -> bool:
        """Reserve `amount` if it fits."""
        if self.spent + self.reserved + amount > self.limit:
            return False
        self.reserved += amount
        return True

    async def depart(self, amount: float) -> "Flight | None":
        """Reserve `amount` for a request, after waiting for others where it does not fit yet.

        Returns:
            None if it never will.
        """
        while not self.take(amount):
            if not self._flights:
                self.exhausted = True
                return None
            self._landed.clear()
            await self._landed.wait()
        self._flights += 1
        return Flight(self, amount)

    def settle(self, reserved: float, spent: float) -> None:
        """Replace a reservation by what was spent."""
        self.reserved -= reserved
        self.spent += spent

    def land(self, flight: "Flight", spent: float) -> None:
        """End a flight."""
        self._flights -= 1
        self.settle(flight.reserved, spent)
        self._landed.set()


@dataclass
class Flight:
    """One question under way: a request, and those that the client sends again.

    A request that times out or whose connection is lost may be billed all the same, so it
    counts in full, beside the one that replaces it.
    """

    budget: Budget
    bound: float
    unheard: int = 0
    """Requests that were sent and have not been answered."""

    reserved: float = field(init=False)

    def __post_init__(self) -> None:
        self.reserved = self.bound

    def sent(self) -> bool:
        """Note a request; False if it replaces a lost one and does not fit, and must not go."""
        if self.unheard:
            if not self.budget.take(self.bound):
                return False
            self.reserved += self.bound
        self.unheard += 1
        return True

    def answered(self) -> None:
        """Note an answer, of whatever kind."""
        self.unheard -= 1

    def land(self, spent: float | None) -> None:
        """Settle for what the answer cost; None if it does not say, and so counts in full."""
        spent = self.bound if spent is None else spent
        self.budget.land(self, spent + self.unheard * self.bound)
