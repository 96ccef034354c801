"""A sink: MLflow's tracking server and model registry, by its REST interface (2.9 and later).

Every kept version becomes a run and a registered version, once; so the first delivery after a
failure sends all that MLflow lacks. The alias `champion` is on the current version, `challenger`
on the newest that waits for approval.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from models.config import Sink
from tasks.publishing.manifest import MANIFEST, Manifest, versions, waiting
from tasks.publishing.tracker_sinks import facts, scalars
from tasks.storage.artifacts import data_dir

_TAG = "llmkt_version"
_MOST_METRICS = 1000  # of one request
_EXPECTED = ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")


def to_mlflow(champion: Manifest, sink: Sink) -> None:
    """Register every kept version that MLflow lacks, and put the aliases where they belong."""
    token = os.environ.get(sink.password_env or "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=str(sink.url), headers=headers, timeout=sink.seconds) as client:
        mlflow = _MLflow(client, champion.experiment)
        oldest_first = versions(champion.experiment)[::-1]
        numbers = {kept.version: mlflow.registered(kept) for kept in oldest_first}
        name = {"name": champion.experiment}
        mlflow.call("registered-models/alias", "DELETE", **name, alias="challenger")
        for alias, version in (("challenger", waiting(champion)[:1]), ("champion", [champion])):
            for kept in version:
                number = numbers[kept.version]
                mlflow.call("registered-models/alias", **name, alias=alias, version=number)


class _MLflow:
    """An experiment and the registered model of its name, made where they are not there yet."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client, self._name = client, name
        self.call("experiments/create", name=name)
        found = self.call("experiments/get-by-name", "GET", experiment_name=name)
        self._experiment = found["experiment"]["experiment_id"]
        self.call("registered-models/create", name=name)

    def registered(self, version: Manifest) -> str:
        """The number of a version's registered version; run and version are made once."""
        asked = f"tags.{_TAG} = '{version.version}'"
        found = self.call("runs/search", experiment_ids=[self._experiment], filter=asked)
        info = (found.get("runs") or [self._begun(version)])[0]["info"]
        run, source = info["run_id"], info["artifact_uri"]
        if info["status"] != "FINISHED":
            self._log(run, version)
            self._upload(source, version)
            self.call("runs/update", run_id=run, status="FINISHED", end_time=_at(version))
        made = self.call("model-versions/search", "GET", filter=f"run_id = '{run}'")
        given = {"name": self._name, "source": source, "run_id": run}
        [known] = made.get("model_versions") or [
            self.call("model-versions/create", **given)["model_version"]
        ]
        return str(known["version"])

    def _begun(self, version: Manifest) -> dict[str, Any]:
        tags = _pairs({_TAG: version.version, "reason": version.decision.reason})
        given = {"experiment_id": self._experiment, "run_name": version.version, "tags": tags}
        return dict(self.call("runs/create", **given, start_time=_at(version))["run"])

    def _log(self, run: str, version: Manifest) -> None:
        """Log settings, metrics, differences and epochs; equal values may be logged again."""
        self.call("runs/log-batch", run_id=run, params=_pairs(facts(version)))
        metrics = [
            {"key": k.replace("@", "_at_"), "value": v, "step": step, "timestamp": _at(version)}
            for step, found in scalars(version)
            for k, v in found.items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self.call("runs/log-batch", run_id=run, metrics=metrics[start : start + _MOST_METRICS])

    def _upload(self, uri: str, version: Manifest) -> None:
        """Attach the manifest, and the reports as they are now."""
        parts = urlsplit(uri)
        if parts.scheme != "mlflow-artifacts":
            raise ValueError(f"artifacts at {uri}. Start `mlflow server` with --serve-artifacts")
        reports = (data_dir() / "reports").glob(f"{self._name}*.html")
        for file in (version.folder / MANIFEST, *reports):
            path = f"/api/2.0/mlflow-artifacts/artifacts{parts.path}/{file.name}"
            self._client.put(path, content=file.read_bytes()).raise_for_status()

    def call(self, path: str, method: str = "POST", **body: Any) -> dict[str, Any]:
        """The answer to a request; empty where what is asked for lacks, or is there already."""
        sent: Any = {"params" if method == "GET" else "json": body}
        answer = self._client.request(method, f"/api/2.0/mlflow/{path}", **sent)
        is_json = "json" in answer.headers.get("content-type", "")
        found: dict[str, Any] = answer.json() if is_json else {}
        if answer.is_error and found.get("error_code") not in _EXPECTED:
            raise ValueError(f"{path}: HTTP {answer.status_code}: {answer.text[:300]}")
        return {} if answer.is_error else found


def _at(version: Manifest) -> int:
    return round(version.created_at.timestamp() * 1000)


def _pairs(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)[:500]} for key, value in values.items()]
