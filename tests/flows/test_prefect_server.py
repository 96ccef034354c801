"""A web page of another origin may do nothing with Prefect's server."""

import tomllib

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from flows.cli.common import UI_ORIGINS
from flows.prefect_server import OwnPagesOnly
from tasks.storage.data_dir import PROJECT_ROOT

OWN = "http://127.0.0.1:4200"


@pytest.fixture
def calls():
    return []


@pytest.fixture
def client(calls):
    async def answer(request):
        calls.append(request.method)
        return PlainTextResponse("done")

    async def echo(socket):
        calls.append("socket")
        await socket.accept()
        await socket.close()

    methods = ["GET", "POST", "OPTIONS"]
    app = Starlette(routes=[Route("/api", answer, methods=methods), WebSocketRoute("/ws", echo)])
    app.add_middleware(OwnPagesOnly, origins=UI_ORIGINS)
    return TestClient(app, base_url=OWN)


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:4201"},
    {"Origin": "https://127.0.0.1:4200"},
    {"Origin": "http://127.0.0.1:4200.evil.example"},
    {"Origin": ""},
    {"Host": "evil.example:4200"},  # its name leads here
    {"Host": "evil.example:4200", "Origin": "http://evil.example:4200"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_page_reaches_nothing(client, calls, headers):
    text = {"Content-Type": "text/plain"}  # no preflight goes before such a request
    asks = {"Access-Control-Request-Method": "POST"}
    for response in (
        client.post("/api", content="{}", headers=headers | text),
        client.options("/api", headers=headers | asks),
        client.get("/api", headers=headers),
    ):
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws", headers=headers):
        pass
    assert calls == []


@pytest.mark.parametrize("headers", [{}, {"Origin": OWN}, {"Origin": "http://localhost:4200"}])
def test_programs_and_the_ui_pass(client, calls, headers):
    assert client.post("/api", headers=headers).text == "done"
    local = headers | {"Host": "localhost:4200"}
    assert client.get("/api", headers=local).text == "done"
    socket = headers | {"Host": "127.0.0.1:4200"}
    with client.websocket_connect("/ws", headers=socket):
        pass
    assert calls == ["POST", "GET", "socket"]


def test_prefects_own_server_names_no_origin_but_the_uis():
    settings = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["prefect"]
    assert settings["server"]["api"]["cors_allowed_origins"] == UI_ORIGINS
    assert 'python" -m flows.prefect_server' in (PROJECT_ROOT / "flows/serve.sh").read_text()
