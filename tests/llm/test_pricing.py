"""What tokens cost: the table, whose price a model has, and what is wrong with a file."""

import pytest

from models.errors import BadInput
from models.llm.pricing import Price, PriceTable
from tasks.config.price_table import price_table

TABLE = PriceTable.model_validate(
    {
        "date": "2026-01-02",
        "prices": {
            name: {"input_per_million": number, "output_per_million": 0}
            for number, name in enumerate(("gpt-5", "gpt-4o", "gpt-4o-mini"))
        },
    }
)


@pytest.mark.parametrize(
    ("model", "priced_as"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-mini-latest", "gpt-4o-mini"),
        ("gpt-4o-0613", "gpt-4o"),
    ],
)
def test_a_snapshot_has_its_model_s_price(model, priced_as):
    assert TABLE.price_of(model) == TABLE.prices[priced_as]


@pytest.mark.parametrize(
    "model", ["gpt-5-pro", "gpt-5-pro-2025-10-06", "gpt-5.1", "gpt", "smollm2", "", "-2024-01-01"]
)
def test_another_model_s_price_is_not_known(model):
    assert TABLE.price_of(model) is None


def test_cost_is_tokens_times_price_and_less_in_a_batch():
    price = Price(input_per_million=0.15, output_per_million=0.60, batch_discount=0.25)
    # 2,000 · 0.15 + 500 · 0.60 = 600 dollars per million.
    assert price.cost(2000, 500) == pytest.approx(600e-6)
    assert price.cost(2000, 500, batch=True) == pytest.approx(450e-6)


def test_the_project_s_own_table_knows_the_default_model():
    table = price_table(None)
    assert table.source.startswith("https://")
    price = table.price_of("gpt-4o-mini")
    assert price is not None
    assert 0 < price.input_per_million < price.output_per_million


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prices: {}", "date is required"),
        ("date: soon\nprices: {}", "date: .*got 'soon'"),
        ("date: 2026-01-02\nprices: {m: {input_per_million: 1}}", "m.output_per_million is requir"),
        (
            "date: 2026-01-02\nprices: {m: {input_per_million: -1, output_per_million: 1}}",
            "prices.m.input_per_million: .*greater than or equal to 0 .got -1",
        ),
        ("date: 2026-01-02\nprice: {}", "price is not a known key, did you mean prices"),
        ("- 1", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_price_table_is_said(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        price_table(file)
    assert str(file) in str(error.value)


def test_a_price_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"absent.yaml: this price table does not exist"):
        price_table(tmp_path / "absent.yaml")
