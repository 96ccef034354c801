"""An OpenAI-compatible endpoint over loopback that answers as a test tells it to."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from models.config import LLM, Profiles
from models.schemas import INTERACTIONS, ITEMS
from tasks.profiles.outputs import Profiled
from tasks.profiles.profiles_task import profiles
from tasks.storage.artifacts import Handle, read_parquet, write_parquet

KEY = "sk-very-secret"
TEMPLATE = """{% block system %}Describe.{% endblock %}
{% block user %}Likes {{ history[0].title }}{% endblock %}"""

Reply = Callable[[dict], Response]


def completion(content: str | None, finish_reason: str = "stop", refusal: str | None = None):
    message = {"role": "assistant", "content": content, "refusal": refusal}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }
    return Response(json.dumps(body), content_type="application/json")


def failure(status: int, message: str = "no", **headers) -> Response:
    body = json.dumps({"error": {"message": message, "code": None}})
    return Response(body, status, {"retry-after-ms": "20", **headers}, None, "application/json")


def answer(request: dict) -> Response:
    return completion(f" A profile of one who {request['messages'][-1]['content']}.\n")


@dataclass
class FakeLLM:
    """Answers every prompt; `script` holds other replies to give first, by film title."""

    server: HTTPServer
    script: dict[str, list[Reply]] = field(default_factory=dict)
    default: Reply = answer
    requests: list[dict] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    in_flight: int = 0
    most_in_flight: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return self.server.url_for("/v1")

    def titles(self) -> Counter[str]:
        """How often each film was asked about."""
        return Counter(
            request["messages"][-1]["content"].split('"')[1] for request in self.requests
        )

    def handle(self, request: Request) -> Response:
        body = json.loads(request.get_data())
        title = body["messages"][-1]["content"].split('"')[1]
        with self.guard:
            self.requests.append(body)
            self.times.append(time.monotonic())
            self.keys.add(request.headers["Authorization"])
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            queue = self.script.get(title, [])
            reply = queue.pop(0) if queue else self.default
        try:
            return reply(body)
        finally:
            with self.guard:
                self.in_flight -= 1


def config(llm: FakeLLM, max_missing: float = 0.0, **settings) -> Profiles:
    endpoint = {"base_url": llm.url, "api_key_env": "LLMKT_TEST_KEY", "timeout_seconds": 60}
    return Profiles(
        provider="openai", max_missing=max_missing, llm=LLM.model_validate(endpoint | settings)
    )


def data(*titles: str) -> tuple[Handle, Handle]:
    """User `user-N` has seen the N-th film and no other."""
    users = [f"user-{n}" for n in range(len(titles))]
    items = [f"item-{n}" for n in range(len(titles))]
    n = len(titles)
    train = pa.table([users, items, [4.0] * n, pa.nulls(n)], INTERACTIONS.names)
    catalogue = pa.table([items, titles, pa.nulls(n), pa.nulls(n)], ITEMS.names)
    return (
        write_parquet("split", train.cast(INTERACTIONS)),
        write_parquet("items", catalogue.cast(ITEMS)),
    )


def run(settings: Profiles, *titles: str) -> Profiled:
    return profiles.fn(settings, TEMPLATE, *data(*titles))


def texts(result: Profiled) -> dict[str, str | None]:
    table = read_parquet(result.profiles)
    return dict(zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def reasons(result: Profiled) -> list[str | None]:
    return read_parquet(result.profiles)["missing_reason"].to_pylist()


def slow(seconds: float) -> Reply:
    def reply(request: dict) -> Response:
        time.sleep(seconds)
        return answer(request)

    return reply


@pytest.fixture(scope="session")
def server() -> Iterator[HTTPServer]:
    with HTTPServer(threaded=True) as running:
        yield running


@pytest.fixture
def llm(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeLLM:
    monkeypatch.setenv("LLMKT_TEST_KEY", KEY)
    server.clear()
    fake = FakeLLM(server)
    server.expect_request("/v1/chat/completions", "POST").respond_with_handler(fake.handle)
    return fake
