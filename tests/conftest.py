"""Fixtures shared by the tests: a data folder of one's own, a small world, a Prefect server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

FOLDER = Path(__file__).parent
LONG = ("flows/test_kill_and_resume", "execution/test_dask_cluster", "flows/", "recommenders/")
"""Starts of the paths of files that take long, the longest first."""
WITH_UMAP = ("targets/", "report/", "embeddings/test_batched", "flows/test_knowledge_transfer")
"""UMAP compiles for a quarter of a minute, once in each process."""

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def group(path: str) -> str:
    """Name the tests that share a process with those of the file `path`, below this folder."""
    return "umap" if path.startswith(WITH_UMAP) else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the groups, those that take long first."""
    ranks = {}
    for item in items:
        path = item.path.relative_to(FOLDER).as_posix()
        first = "flows/" if group(path) == "umap" else path
        place = [number for number, start in enumerate(LONG) if first.startswith(start)]
        ranks[item] = (min(place, default=len(LONG)), group(path))
    items.sort(key=ranks.__getitem__)


class GroupScheduling(LoadScopeScheduling):
    """Let the tests of a group share a process, and with it what they set up.

    The marker `xdist_group` does nothing here: pytest-xdist 3.8 writes it into a field that
    pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.split("::", 1)[0].removeprefix(f"{FOLDER.name}/"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """Hand out whole groups of tests."""
    return GroupScheduling(config, log)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder that every artifact of the test goes to."""
    folder = tmp_path / "data"
    monkeypatch.setenv("LLMKT_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def no_run_logger() -> Iterator[None]:
    """Let stages be called outside a run."""
    from prefect.logging import disable_run_logger

    with disable_run_logger():
        yield


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """One temporary Prefect server for all tests that run flows; yields its API's URL."""
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield str(get_current_settings().api.url)
