"""A run that is asked to end (SIGTERM) takes all that it started along."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import typer

from flows.cli.common import TERMINATED, plain_errors
from tasks.storage.artifacts import PROJECT_ROOT
from tests.support.toy_project import CONFIG
from tests.support.toy_world import MEDIUM

PATIENCE_SECONDS = 600
ENDLESS = (
    "training.arms=[baseline]",
    "training.epochs=1000000",
    "training.patience=1000000",
)


@pytest.fixture
def endless(tmp_path):
    """The command in a training without end, under a temporary server of its own."""
    data, config = tmp_path / "data", tmp_path / "toy.yaml"
    MEDIUM.write(tmp_path)
    config.write_text(CONFIG.format(folder=tmp_path))
    unset = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(config)]
        + [part for setting in ENDLESS for part in ("--set", setting)],
        cwd=PROJECT_ROOT,
        env={key: value for key, value in os.environ.items() if key not in unset}
        | {"LLMKT_DATA_DIR": str(data)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    family = [psutil.Process(process.pid)]
    try:
        wait_for(lambda: [*Path(data).glob("checkpoints/*.pt")], process)
        family += family[0].children(recursive=True)
        yield process, family[1:]
    finally:
        for member in family:
            if member.is_running():
                member.kill()
        process.communicate()


def wait_for(happened, process) -> None:
    """Until it has, or the process is gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the training did not begin"
        time.sleep(0.1)


def test_sigterm_ends_server_and_workers_too(endless):
    process, children = endless
    commands = [" ".join(child.cmdline()) for child in children]
    assert any("prefect.server" in command for command in commands)
    assert any("spawn_main" in command for command in commands)
    process.send_signal(signal.SIGTERM)
    assert (
        "Stopped; whatever was finished stays cached."
        in process.communicate(timeout=PATIENCE_SECONDS)[1]
    )
    assert process.returncode == TERMINATED == 143
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert alive == []


def test_sigterm_is_code_143_and_does_not_count_twice(capfd):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(typer.Exit) as ended, plain_errors():
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.exit_code == 143
        signal.raise_signal(signal.SIGTERM)  # would end the tests
        assert capfd.readouterr().err.count("Stopped") == 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_signal_is_given_back_after_a_command():
    before = signal.getsignal(signal.SIGTERM)
    with plain_errors():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(typer.Exit), plain_errors():
        raise ValueError
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def command() -> None:
        with plain_errors():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=command)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
