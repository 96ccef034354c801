"""A Batch API over loopback: files, batches, polling, and results as a test wants them."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from models.config import LLM, Profiles

KEY = "sk-very-secret"
Row = dict
Rule = Callable[[Row, int], Row | None]


def body_of(text: str | None, finish_reason: str = "stop") -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }


def answered(request: Row, body: dict | None = None, status: int = 200) -> Row:
    said = f"A profile of one who {request['body']['messages'][-1]['content']}."
    response = {"status_code": status, "request_id": "r", "body": body or body_of(said)}
    return {"id": "x", "custom_id": request["custom_id"], "response": response, "error": None}


def title(request: Row) -> str:
    return request["body"]["messages"][-1]["content"].split('"')[1]


@dataclass
class FakeBatches:
    """Batches end when `polls` looks have been taken; `rule` may change a row of results."""

    server: HTTPServer
    polls: int = 1
    status: str = "completed"
    rule: Rule = lambda request, _: answered(request)
    errors: list[str] = field(default_factory=list)
    stuck_at: str = "nothing"
    """A request that is acted on, but answered only when `release` is set: `GET /files`."""
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, dict] = field(default_factory=dict)
    looks: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return self.server.url_for("/v1")

    def submitted(self) -> Counter[str]:
        """How often each film was asked about."""
        return Counter(title(row) for batch in self.batches.values() for row in self._rows(batch))

    def rows(self, name: str) -> list[Row]:
        return self._rows(self.batches[name])

    def _rows(self, batch: dict) -> list[Row]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    def handle(self, request: Request) -> Response:
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return Response('{"error": {"message": "bad key"}}', 401)
        path = request.path.removeprefix("/v1")
        self.log.append(f"{request.method} {path}")
        for pattern, method, handler in (
            ("/files", "POST", self._upload),
            ("/files/([^/]+)/content", "GET", self._content),
            ("/batches", "POST", self._create),
            ("/batches", "GET", self._list),
            ("/batches/([^/]+)", "GET", self._look),
        ):
            match = re.fullmatch(pattern, path)
            if match and request.method == method:
                response = handler(request, *match.groups())
                if f"{method} {path}".startswith(self.stuck_at):
                    self.reached.set()
                    self.release.wait(60)
                return response
        return Response('{"error": {"message": "no such path"}}', 404)

    def _upload(self, request: Request) -> Response:
        assert request.form["purpose"] == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = request.files["file"].read().decode()
        return _json({"id": name, "object": "file", "purpose": "batch"})

    def _content(self, _: Request, name: str) -> Response:
        return Response(self.files[name], content_type="application/octet-stream")

    def _create(self, request: Request) -> Response:
        asked = json.loads(request.get_data())
        assert asked["endpoint"] == "/v1/chat/completions"
        assert asked["completion_window"] == "24h"
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "status": "in_progress",
            "created_at": 1_700_000_000,
            **asked,
        }
        rows = self._rows(batch)
        assert len({row["custom_id"] for row in rows}) == len(rows)
        assert all((row["method"], row["url"]) == ("POST", asked["endpoint"]) for row in rows)
        self.batches[batch["id"]] = batch
        return _json(batch)

    def _list(self, _: Request) -> Response:
        found = list(self.batches.values())[::-1]
        return _json({"object": "list", "data": found, "has_more": False})

    def _look(self, _: Request, name: str) -> Response:
        if name in self.lost:
            return Response('{"error": {"message": "no such batch"}}', 404)
        batch = self.batches[name]
        self.looks[name] += 1
        if self.looks[name] >= self.polls and batch["status"] == "in_progress":
            self._end(batch)
        return _json(batch)

    def _end(self, batch: dict) -> None:
        number = len([b for b in self.batches.values() if b["status"] != "in_progress"])
        batch["status"] = self.status
        batch[f"{self.status}_at"] = 1_700_000_100
        if self.errors:
            batch["errors"] = {"object": "list", "data": [{"message": e} for e in self.errors]}
            return
        results = [self.rule(row, number) for row in self._rows(batch)]
        # In no particular order, as documented.
        for part, good in (("output", True), ("error", False)):
            lines = [
                json.dumps(row)
                for row in results[::-1]
                if row
                and (row["response"] is not None and row["response"]["status_code"] == 200) is good
            ]
            if lines:
                self.files[f"{batch['id']}-{part}"] = "\n".join(lines) + "\n"
                batch[f"{part}_file_id"] = f"{batch['id']}-{part}"


def _json(body: dict) -> Response:
    return Response(json.dumps(body), content_type="application/json")


def config(batches: FakeBatches, max_missing: float = 0.0, **settings) -> Profiles:
    endpoint = {
        "base_url": batches.url,
        "api_key_env": "LLMKT_TEST_KEY",
        "batch_poll_seconds": 0.02,
        "timeout_seconds": 60,
    }
    llm = LLM.model_validate(endpoint | settings)
    return Profiles(provider="openai-batch", max_missing=max_missing, llm=llm)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBatches]:
    monkeypatch.setenv("LLMKT_TEST_KEY", KEY)
    with HTTPServer(threaded=True) as server:
        fake = FakeBatches(server)
        server.expect_request(re.compile("/v1/.*")).respond_with_handler(fake.handle)
        yield fake
