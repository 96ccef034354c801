"""The reference in docs/ is what the code says."""

import pytest

from docs.generate_reference import REFERENCE, TEN_KEYS, configuration, pages


@pytest.mark.parametrize("name", ["commands.md", "configuration.md", "database.md"])
def test_the_reference_is_up_to_date(name):
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == pages()[name], "run make docs"


def test_the_reference_has_no_other_pages():
    assert {file.name for file in REFERENCE.iterdir()} == set(pages())


def test_every_key_is_described():
    rows = [line for line in configuration().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
    assert len(rows) > 150


def test_the_ten_keys_come_first():
    rows = [line for line in configuration().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows[:10]] == list(TEN_KEYS)
