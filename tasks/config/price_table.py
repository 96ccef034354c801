"""The price table: the shipped one, or a user's."""

from pathlib import Path

from models.llm.pricing import PriceTable
from tasks.config.yaml_settings import read_settings, validate

_PRICES = Path(__file__).parent / "prices.yaml"


def price_table(path: Path | str | None) -> PriceTable:
    """Read the prices of LLMs, a user's own or the project's; BadInput for any mistake in them."""
    path = Path(path).expanduser() if path else _PRICES
    return validate(PriceTable, read_settings(path, "price table"), path)
