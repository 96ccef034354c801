"""Any file at all: it loads with exact counts, or one clear message says why it does not."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models.config import Dataset
from models.dataset.delimited_text import Dialect
from models.dataset.delimited_text import read as read_text
from models.errors import BadInput
from tasks.storage.text_files import text_source
from tests.support.dataset_files import HEADER, load, rows

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

# The same examples everywhere and every time, so that no run of the tests differs from another.
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fixed")

NASTY = st.text(st.sampled_from('a7é,;:"\n\r\t \x00\ufeff'), max_size=5)
RATINGS = st.sampled_from(["1", "4.5", "", "nan", "1e40", "-3", "x", "5 "])
TIMES = st.sampled_from(["0", "1", "1500000000", "1500000000000", "-1", "", "soon", "1e9"])
LINES = st.lists(st.tuples(NASTY, NASTY, RATINGS, TIMES), max_size=6)


def written(table, quoting=csv.QUOTE_MINIMAL) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting, lineterminator="\n").writerows(table)
    return stream.getvalue().encode()


PLAIN, COLONS = (
    Dialect(names=("a", "b"), header=False),
    Dialect("::", quoted=False, names=("a", "b"), header=False),
)


def read(folder: Path, content: bytes, dialect: Dialect) -> tuple[list[tuple], int]:
    """All values, and how many records were refused."""
    file = folder / "fuzz.csv"
    file.write_bytes(content)
    source = text_source(file, file.name)
    blocks = list(read_text(source, dialect, file.name, ["a", "b"]))
    found = [tuple(row.values()) for block in blocks for row in block.values.to_pylist()]
    return found, sum(block.refused.num_rows for block in blocks)


def attempt(function, *arguments):
    """What it returns, or the `BadInput` that it ends in; anything else fails the test."""
    try:
        return function(*arguments)
    except BadInput as error:
        return error


@given(st.lists(st.tuples(NASTY, NASTY)))
@settings(max_examples=200)
def test_what_a_csv_writer_writes_is_read_as_it_was(tmp_path, table):
    found, refused = read(tmp_path, written(table, csv.QUOTE_ALL), PLAIN)
    # A line end of Windows becomes one of Unix, in values too.
    assert found == [tuple(value.replace("\r\n", "\n") for value in row) for row in table]
    assert refused == 0


@given(st.binary(max_size=60), st.sampled_from([PLAIN, COLONS]))
@settings(max_examples=200)
@example(b'"', PLAIN)
@example(b'a,"b\nc,d\n', PLAIN)
def test_any_bytes_are_records_or_one_message(tmp_path, content, dialect):
    outcome = attempt(read, tmp_path, content, dialect)
    if isinstance(outcome, BadInput):
        assert "fuzz.csv" in str(outcome)
        return
    found, refused = outcome
    assert all(len(row) == 2 for row in found)
    if not dialect.quoted:
        lines = content.decode("utf-8-sig").split("\n")
        assert len(found) + refused == sum(bool(line.strip()) or "\t" in line for line in lines)


@given(LINES)
@settings(max_examples=25)
def test_every_row_of_a_dirty_file_is_accounted_for(tmp_path, table):
    content = HEADER.encode() + written(table)
    file = tmp_path / "dirty.csv"
    file.write_bytes(content)
    config = {"interactions": str(file), "bad_rows": "quarantine"}
    data = attempt(load, config)
    if isinstance(data, BadInput):
        assert "dirty.csv" in str(data)
        assert not any(good(row) for row in table)
        return
    assert data.ingestion.read == len(table)
    assert data.ingestion.kept + sum(drop.rows for drop in data.ingestion.dropped) == len(table)
    assert len(rows(data)) == data.ingestion.kept == len({row[:2] for row in table if good(row)})
    assert (data.ingestion.quarantine.rows if data.ingestion.quarantine else 0) == sum(
        not good(row) for row in table
    )
    strict = Dataset(name="toy", interactions=str(file))
    if data.ingestion.quarantine:
        with pytest.raises(BadInput, match=r"dirty\.csv, row [0-9]+: "):
            load(strict.model_dump(exclude_unset=True))


def good(row: tuple[str, str, str, str]) -> bool:
    """Whether a row is good, said once more and otherwise than in SQL."""
    *ids, rating, time = row
    return (
        all(value and value.isprintable() and value == value.strip() for value in map(visible, ids))
        and rating in ("1", "4.5", "", "-3")
        and time in ("0", "1", "1500000000", "1e9")
    )


def visible(value: str) -> str:
    """A byte order mark inside a file is a character like others, if no printable one."""
    return value.replace("\ufeff", "x")
