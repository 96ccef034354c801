"""What gain an experiment can detect, from the variances of past runs, before it is paid for."""

import math
from dataclasses import dataclass
from typing import Self

from models.arrow import Floats
from models.statistics.paired_comparison import Spread

POWER = 0.8
"""Chance to find a gain that is there."""
_MOST = 100
"""Replicates; more than that are not planned."""


@dataclass(frozen=True)
class Variances:
    """Variance components of a difference, in squares of the metric's unit.

    Attributes:
        replicates: between replicates, from 0.
        users: between users, from 0.
        rest: of a single user under a single replicate.
        n_users: how many users there are.
    """

    replicates: float
    users: float
    rest: float
    n_users: int

    @classmethod
    def of(cls, differences: Floats) -> Self:
        """Estimate them from float64 (n_replicates, n_users) of past runs."""
        n, users = differences.shape
        spread = Spread.of(differences)
        rest = (spread.floor - spread.users) * n * users if n > 1 else 0.0
        replicates = max(n * spread.seeds - rest / users, 0.0)
        return cls(replicates, spread.users * users, rest, users)

    def detectable(self, replicates: int, level: float) -> float:
        """The difference that a test at `level` finds with 80 % power; infinite for none."""
        from scipy.special import ndtri

        a = (self.replicates + self.rest / self.n_users) / replicates
        b = self.users / self.n_users
        if replicates < 2 and self.replicates + self.rest > 0:
            return math.inf
        floor = b + self.rest / (self.n_users * replicates)
        expected = Spread(a, b, floor, max(replicates - 1, 1), self.n_users - 1)
        return expected.reach(level) + float(ndtri(POWER)) * math.sqrt(a + b)

    def needed(self, difference: float, level: float) -> int | None:
        """The fewest replicates that find a difference with 80 % power; None if 100 do not."""
        return next(
            (n for n in range(1, _MOST + 1) if self.detectable(n, level) <= difference), None
        )
