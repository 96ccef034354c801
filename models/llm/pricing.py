"""What tokens cost: a table of prices per model, and sums of it."""

import datetime
import re
from dataclasses import dataclass

from pydantic import Field

from models.config.section import Section

BYTES_PER_TOKEN = 3
"""At least so many bytes of UTF-8 make a token: 4 to 5 in English, 3 (one sign) in Chinese."""

_PER_MILLION = 1_000_000
_SNAPSHOT = re.compile(r"[\d-]+|latest")
"""What may follow a model's name without making it another model: gpt-5-pro is not gpt-5."""


class Price(Section):
    """What one model's tokens cost, in US dollars."""

    input_per_million: float = Field(ge=0, allow_inf_nan=False, description="Prompt tokens.")
    output_per_million: float = Field(ge=0, allow_inf_nan=False, description="Answer tokens.")
    batch_discount: float = Field(
        0.5, ge=0, le=1, description="Share of the price that the Batch API takes off."
    )

    def cost(self, prompt_tokens: int, completion_tokens: int, batch: bool = False) -> float:
        """Return the US dollars for so many tokens, through the Batch API at its discount."""
        full = (
            prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million
        ) / _PER_MILLION
        return full * (1 - self.batch_discount) if batch else full


class PriceTable(Section):
    """Prices by model name, of one day."""

    date: datetime.date = Field(description="When the prices were looked up.")
    source: str = Field("", description="Where.")
    prices: dict[str, Price]

    def price_of(self, model: str) -> Price | None:
        """Find the price of a model, or of the one that it is a dated snapshot of.

        gpt-4o-mini-2024-07-18 costs what gpt-4o-mini does. None if neither is listed: then its cost
        is not known, which is not 0.
        """
        name = model
        while name not in self.prices:
            name = name.rpartition("-")[0]
            if not name or not _SNAPSHOT.fullmatch(model[len(name) + 1 :]):
                return None
        return self.prices[name]


@dataclass(frozen=True)
class Tariff:
    """What a run's answers cost: a price, None where it is not known, and whether in batches."""

    price: Price | None
    batch: bool = False

    def cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """Return US dollars; None where the price is not known or the endpoint did not count."""
        if self.price is None or prompt_tokens is None or completion_tokens is None:
            return None
        return self.price.cost(prompt_tokens, completion_tokens, self.batch)

    def highest_cost(self, request_bytes: int, max_tokens: int) -> float:
        """Return the most that a request may cost in US dollars, by its text and longest answer."""
        if self.price is None:
            raise ValueError("a bound needs a price")
        prompt_tokens = -(-request_bytes // BYTES_PER_TOKEN)
        return self.price.cost(prompt_tokens, max_tokens, self.batch)
