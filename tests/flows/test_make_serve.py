"""`make serve` ends whole: server, worker and runs, at Ctrl-C and at SIGTERM."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tasks.storage.artifacts import PROJECT_ROOT

MARK = "LLMKT_SERVE_TEST"


def processes(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of one's own, whose data folder is empty."""
    for path in PROJECT_ROOT.iterdir():
        if path.name != "data":
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_it_ends_whole(checkout, how):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    mark, api = uuid4().hex, f"http://127.0.0.1:{port}/api"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {
        MARK: mark,
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    log = checkout / "log"
    with log.open("w") as out:
        serve = subprocess.Popen(
            ["make", "-o", ".venv/.ready", "serve", f"API={api}"],
            cwd=checkout,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "started!" in log.read_text() or serve.poll() is not None, log)
        assert serve.poll() is None, log.read_text()
        prefect = [str(checkout / ".venv/bin/prefect"), "--no-prompt", "deployment", "run"]
        subprocess.run(
            [*prefect, "experiment/grid", "--param", "config=configs/experiments/controls.yaml"],
            cwd=checkout,
            env=env | {"PREFECT_API_URL": api},
            check=True,
            capture_output=True,
        )
        wait_for(lambda: "Running" in log.read_text() or len(processes(mark)) > 5, log)
        began = time.monotonic()
        if how == "Ctrl-C":
            os.killpg(serve.pid, signal.SIGINT)  # as a terminal does
        else:
            serve.terminate()
        serve.wait(60)
        wait_for(lambda: not processes(mark), log, 15)
        assert time.monotonic() - began < 60
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0
    finally:
        for process in processes(mark):
            process.kill()


def wait_for(condition, log: Path, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)
