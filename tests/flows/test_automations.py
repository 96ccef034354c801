"""People are told: automations.yaml in Prefect's own server, with a webhook on this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from werkzeug import Request, Response

from tasks.storage.artifacts import PROJECT_ROOT

FILE = PROJECT_ROOT / "automations.yaml"
NO_BLOCK = "00000000-0000-0000-0000-000000000000"
BLOCK = """
from prefect.blocks.notifications import CustomWebhookNotificationBlock
block = CustomWebhookNotificationBlock(
    name="night", url="{url}", json_data={{"subject": "{{{{subject}}}}", "body": "{{{{body}}}}"}}
)
print(block.save("night"))
"""
EMIT = """
from tasks.nightly.alerts import tell
from tests.publishing.test_publishing_task import row
tell(row("1", None, decision="needs approval", reason="coverage 0.1 is below 0.2"))
"""


def test_every_automation_is_one_of_open_source_prefect():
    given = yaml.safe_load(FILE.read_text())["automations"]
    found = {each["name"]: AutomationCore.model_validate(each) for each in given}
    assert set(found) == {"llmkt-night", "llmkt-alert", "llmkt-no-night"}
    assert found["llmkt-no-night"].trigger.within.total_seconds() == 27 * 3600
    assert {action.type for one in found.values() for action in one.actions} == {
        "send-notification"
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Prefect server with a database of its own; yields the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env["PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY"] = "PT1S"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(1200):
            try:
                if httpx.get(f"{api}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield env | {"PREFECT_API_URL": api, "LLMKT_DATA_DIR": str(tmp_path / "data")}
    finally:
        process.terminate()
        process.wait(60)


def call(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_webhook_is_told_the_reason_and_a_link_and_that_no_night_ended(
    server, httpserver, tmp_path
):
    got: list[dict[str, str]] = []

    def got_one(request: Request) -> Response:
        got.append(request.json)
        return Response("")

    httpserver.expect_request("/told").respond_with_handler(got_one)
    block = call(server, "-c", BLOCK.format(url=httpserver.url_for("/told"))).strip()
    mine = tmp_path / "mine.yaml"
    mine.write_text(FILE.read_text().replace(NO_BLOCK, block).replace("97200", "20"))
    call(server, "-m", "prefect", "--no-prompt", "automation", "create", "--from-file", str(mine))
    time.sleep(3)  # until the server has read them
    call(server, "-c", EMIT)
    told: dict[str, str] = {}
    for _ in range(600):
        told = {message["subject"]: message["body"] for message in got}
        if len(told) >= 2:
            break
        time.sleep(0.2)
    body = told["tiny: llmkt.night.needs-approval"]
    assert body.startswith("coverage 0.1 is below 0.2 file:///")
    assert "No llmkt night has ended" in told["No night has ended"]
