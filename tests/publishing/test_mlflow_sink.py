"""MLflow as a sink: told to a small HTTP server, and to a real MLflow if there is one.

make mlflow    # an environment of its own, for its dependencies do not go with the lock
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from werkzeug import Request, Response

from models.config import Sink
from models.schemas import Epoch
from tasks.publishing.manifest import current
from tasks.publishing.sinks import deliver
from tasks.publishing.versions import approve, publish, rollback
from tasks.storage.artifacts import PROJECT_ROOT, write_bytes
from tests.publishing.test_publishing_task import manifest, row

MLFLOW = PROJECT_ROOT / ".venv-mlflow" / "bin" / "mlflow"
EPOCHS = [
    Epoch(
        phase="train",
        epoch=n,
        model_loss=1 / (n + 1),
        transfer_loss=None,
        valid_score=0.1,
        seconds=1,
    )
    for n in range(3)
]
API = "/api/2.0/mlflow/"


class FakeMLflow:
    """As much of MLflow's REST interface as the sink uses; keeps every request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.versions: list[dict[str, Any]] = []
        self.aliases: dict[str, str] = {}
        self.artifacts: dict[str, bytes] = {}
        self.is_known = False

    def handle(self, request: Request) -> Response:
        path = request.path
        if path.startswith("/api/2.0/mlflow-artifacts/artifacts/"):
            self.artifacts[path.removeprefix("/api/2.0/mlflow-artifacts/artifacts/")] = request.data
            return Response("{}", mimetype="application/json")
        name = path.removeprefix(API)
        given = request.args.to_dict() if request.method == "GET" else request.get_json()
        self.requests.append((request.method, name, given))
        answer = getattr(self, name.replace("/", "_").replace("-", "_"))(request.method, given)
        status = 404 if "error_code" in answer else 200
        return Response(json.dumps(answer), status, mimetype="application/json")

    def of(self, name: str) -> list[Any]:
        return [given for _, asked, given in self.requests if asked == name]

    def experiments_create(self, *_):
        known, self.is_known = self.is_known, True
        return {"error_code": "RESOURCE_ALREADY_EXISTS"} if known else {"experiment_id": "7"}

    def experiments_get_by_name(self, _, given):
        return {"experiment": {"experiment_id": "7", "name": given["experiment_name"]}}

    def registered_models_create(self, *_):
        return {"error_code": "RESOURCE_ALREADY_EXISTS"} if self.versions else {}

    def runs_search(self, _, given):
        found = [
            run for run in self.runs.values() if f"'{run['info']['run_name']}'" in given["filter"]
        ]
        return {"runs": found} if found else {}

    def runs_create(self, _, given):
        run = f"run{len(self.runs)}"
        where = f"mlflow-artifacts:/7/{run}/artifacts"
        info = {"run_id": run, "artifact_uri": where, "status": "RUNNING"}
        self.runs[run] = {"info": info | {"run_name": given["run_name"]}}
        return {"run": self.runs[run]}

    def runs_log_batch(self, *_):
        return {}

    def runs_update(self, _, given):
        self.runs[given["run_id"]]["info"]["status"] = given["status"]
        return {}

    def model_versions_search(self, _, given):
        return {
            "model_versions": [v for v in self.versions if f"'{v['run_id']}'" in given["filter"]]
        }

    def model_versions_create(self, _, given):
        self.versions.append(given | {"version": str(len(self.versions) + 1)})
        return {"model_version": self.versions[-1]}

    def registered_models_alias(self, method, given):
        if method == "DELETE":
            self.aliases.pop(given["alias"], None)
        else:
            self.aliases[given["alias"]] = given["version"]
        return {}


def put(version: str, previous: str | None, swap: bool = True, **changes) -> None:
    """Publish a version, or one that waits for approval."""
    made = manifest(version, previous).model_copy(
        update={"decision": row(version, previous, **changes), "epochs": tuple(EPOCHS)}
    )
    publish(made, {"weights.safetensors": write_bytes("x", ".safetensors", version.encode())}, swap)


def test_runs_versions_and_aliases(data_dir, httpserver):
    fake = FakeMLflow()
    httpserver.expect_request(re.compile("/api/.*")).respond_with_handler(fake.handle)
    reports = data_dir / "reports"
    reports.mkdir(parents=True)
    (reports / "tiny-nights.html").write_text("nights")
    sink = Sink(kind="mlflow", url=httpserver.url_for("/").rstrip("/"))
    put("1", None)
    put("2", "1", difference=0.01, ci_low=-0.005, ci_high=0.025)
    assert deliver(current("tiny"), [sink]) == []
    assert [run["run_name"] for run in fake.of("runs/create")] == ["1", "2"]  # the first was missed
    assert fake.aliases == {"champion": "2"}
    [settings, metrics] = fake.of("runs/log-batch")[-2:]
    params = {pair["key"]: pair["value"] for pair in settings["params"]}
    assert params.items() >= {"model": "BPR", "arm": "baseline", "dataset": "toy"}.items()
    logged = {(each["key"], each["step"]): each["value"] for each in metrics["metrics"]}
    assert (logged["ndcg_at_10", 0], logged["difference", 0]) == (0.1, 0.01)
    assert logged["model_loss", 2] == EPOCHS[2].model_loss
    assert logged["ci_low", 0] == -0.005
    assert set(fake.artifacts) == {
        f"7/{run}/artifacts/{name}"
        for run in fake.runs
        for name in ("manifest.json", "tiny-nights.html")
    }
    n = len(fake.requests)
    assert deliver(current("tiny"), [sink]) == []
    assert len(fake.requests) == n  # nothing new, so nothing is asked
    put("3", "2", swap=False, decision="needs approval")
    assert deliver(current("tiny"), [sink]) == []
    assert fake.aliases == {"champion": "2", "challenger": "3"}
    rollback("tiny")
    assert deliver(current("tiny"), [sink]) == []
    assert fake.aliases == {"champion": "1"}
    assert len(fake.runs) == len(fake.versions) == 3
    assert {run["info"]["status"] for run in fake.runs.values()} == {"FINISHED"}


def test_an_unreachable_server_is_an_alert_and_what_it_missed_is_sent_later(data_dir, httpserver):
    assert data_dir
    port = httpserver.port + 1 if not _answers(httpserver.port + 1) else 1
    put("1", None)
    [failure] = deliver(current("tiny"), [Sink(kind="mlflow", url=f"http://127.0.0.1:{port}")])
    assert "sink mlflow did not take 1" in failure
    fake = FakeMLflow()
    httpserver.expect_request(re.compile("/api/.*")).respond_with_handler(fake.handle)
    sink = Sink(kind="mlflow", url=httpserver.url_for("/").rstrip("/"))
    fake.runs_update = lambda *_: {"error_code": "INTERNAL_ERROR"}  # killed after the metrics
    [failure] = deliver(current("tiny"), [sink])
    assert "runs/update: HTTP 404" in failure
    del fake.runs_update
    assert deliver(current("tiny"), [sink]) == []
    assert (len(fake.runs), len(fake.versions)) == (1, 1)
    first, again = (fake.of("runs/log-batch")[n::2] for n in (0, 1))
    assert first[0] == first[1]  # equal time stamps, so that MLflow keeps one of each
    assert again[0] == again[1]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_token_is_sent_and_not_shown(data_dir, httpserver, monkeypatch):
    assert data_dir
    monkeypatch.setenv("MLFLOW_WORD", "correct-horse")
    httpserver.expect_request(
        re.compile("/api/.*"), headers={"Authorization": "Bearer correct-horse"}
    ).respond_with_data("correct-horse may not", status=403)
    put("1", None)
    url = httpserver.url_for("/").rstrip("/")
    sink = Sink(kind="mlflow", url=url, password_env="MLFLOW_WORD")
    [failure] = deliver(current("tiny"), [sink])
    assert "HTTP 403" in failure
    assert "correct-horse" not in failure


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    if not MLFLOW.exists():
        pytest.skip("MLflow has no environment of its own here (make mlflow)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(MLFLOW), "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/m.db"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *store, "--artifacts-destination", str(tmp_path / "artifacts")],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(1200):
            if _answers(port) and httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_real_mlflow_has_runs_metrics_versions_and_aliases(data_dir, server):
    assert data_dir
    sink = Sink(kind="mlflow", url=server)
    put("1", None)
    put("2", "1", difference=0.01)
    put("3", "2", swap=False, decision="needs approval")
    assert deliver(current("tiny"), [sink]) == []

    def ask(path: str, **given: Any) -> Any:
        answer = httpx.get(server + API + path, params=given, timeout=60)
        return answer.raise_for_status().json()

    def alias(name: str) -> Any:
        found = ask("registered-models/alias", name="tiny", alias=name)["model_version"]
        run = ask("runs/get", run_id=found["run_id"])["run"]
        return run["info"]["run_name"], found["version"], run

    champion, _, run = alias("champion")
    assert (champion, alias("challenger")[0]) == ("2", "3")
    assert run["info"]["status"] == "FINISHED"
    metrics = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert (metrics["ndcg_at_10"], metrics["difference"]) == (0.1, 0.01)
    assert {"key": "model", "value": "BPR"} in run["data"]["params"]
    run_id = run["info"]["run_id"]
    history = ask("metrics/get-history", run_id=run_id, metric_key="model_loss")["metrics"]
    assert [each["step"] for each in history] == [0, 1, 2]
    assert [file["path"] for file in ask("artifacts/list", run_id=run_id)["files"]] == [
        "manifest.json"
    ]
    approve("tiny", "3")
    assert deliver(current("tiny"), [sink]) == []
    assert alias("champion")[:2] == ("3", "3")
    rollback("tiny")
    rollback("tiny")
    assert deliver(current("tiny"), [sink]) == []
    assert alias("champion")[:2] == ("1", "1")
    experiment = ask("experiments/get-by-name", experiment_name="tiny")["experiment"]
    given = {"experiment_ids": [experiment["experiment_id"]]}
    runs = httpx.post(f"{server}{API}runs/search", json=given, timeout=60).json()["runs"]
    assert len(runs) == 3
