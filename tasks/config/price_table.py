"""The price table: the shipped one, or a user's."""

from pathlib import Path

from models.llm.pricing import PriceTable
from tasks.config.yaml_settings import read_settings, validate

_PRICES = Path(__file__).parent / "prices.yaml"


def price_table(path: Path | str | None) -> PriceTable:
    """The prices of LLMs.

    Args:
        path: a table of the user's own; None means the one that comes with the project.

    Raises:
        BadInput: for a missing or malformed file and for every wrong or missing field.
    """
    path = Path(path).expanduser() if path else _PRICES
    return validate(PriceTable, read_settings(path, "price table"), path)
