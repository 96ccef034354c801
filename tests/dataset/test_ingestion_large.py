"""More rows than fit comfortably: part of `make test-slow`; a minute and half a gigabyte."""

import resource

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from tests.support.dataset_files import load

N_ROWS = 12_000_000

pytestmark = [
    pytest.mark.usefixtures("data_dir", "no_run_logger"),
    pytest.mark.slow,
]


def test_twelve_million_rows(tmp_path):
    rng = np.random.default_rng(1)
    file = tmp_path / "many.csv"
    schema = pa.schema(
        [
            ("user_id", pa.int32()),
            ("item_id", pa.int32()),
            ("rating", pa.int8()),
            ("timestamp", pa.int64()),
        ]
    )
    n = N_ROWS // 12
    with pa.csv.CSVWriter(file, schema) as writer:
        for number in range(12):
            users = np.arange(number * n, (number + 1) * n, dtype=np.int32) // 30
            # 30 different items per user: consecutive ones from a random start.
            items = (
                rng.integers(0, 50_000, n // 30 + 2)[users - users[0]] + np.arange(n) % 30
            ) % 50_000
            ratings = rng.integers(1, 6, n)
            times = rng.integers(10**9, 15 * 10**8, n)
            columns = [users, items.astype(np.int32), ratings.astype(np.int8), times]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
    with file.open("a") as stream:
        stream.write("1,2,nan,5\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = load({"interactions": str(file), "bad_rows": "quarantine", "rating_from": 2})
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert data.ingestion.read == N_ROWS + 1
    assert data.ingestion.kept + sum(drop.rows for drop in data.ingestion.dropped) == N_ROWS + 1
    assert data.ingestion.quarantine.rows == 1
    assert data.interactions.rows == data.ingestion.kept > N_ROWS * 0.75
    assert grown < 4.0, f"{grown:.1f} GB"
