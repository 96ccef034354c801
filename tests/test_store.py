"""A data folder in a store: the same results, shared by machines that share nothing else."""

import pyarrow as pa
import pytest
from buckets import S3, s3  # noqa: F401 - a fixture
from toy import World, first, states, world  # noqa: F401 - fixtures

from tasks.storage import read_parquet, write_parquet

pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture
def machine(tmp_path, monkeypatch, request):
    """Move this process to another machine, with an empty folder of its own."""

    def move(name: str, url: str) -> None:
        monkeypatch.setenv("LLMKT_LOCAL_DIR", str(tmp_path / name))
        monkeypatch.setenv("LLMKT_DATA_DIR", url)

    return move


def numbers(*values: int):
    return write_parquet("numbers", pa.table({"n": list(values)}))


def test_an_artifact_that_one_machine_wrote_another_one_reads(s3: S3, machine):  # noqa: F811
    machine("one", s3.url("shared"))
    handle = numbers(1, 2)
    assert s3.keys("shared") == [handle.path]
    machine("other", s3.url("shared"))
    assert not handle.file.exists()
    assert read_parquet(handle)["n"].to_pylist() == [1, 2]
    assert handle.file.is_file()
