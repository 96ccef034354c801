"""The Prefect server of `make serve`, which no page but its own UI may talk to.

Whoever may create a deployment may run a shell command on a worker. CORS alone keeps a foreign
page from reading answers; this refuses its requests, also by web socket, and also where the page's
own name leads to this machine (DNS rebinding). The origins of the UI are Prefect's own setting,
`PREFECT_SERVER_CORS_ALLOWED_ORIGINS`.
"""

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class OwnPagesOnly:
    """Answer 403 to requests by a foreign name, or from a page of a foreign origin."""

    def __init__(self, app: ASGIApp, origins: str) -> None:
        self.app = app
        self.origins = {origin.strip().rstrip("/").lower() for origin in origins.split(",")}
        self.hosts = {origin.partition("://")[2] for origin in self.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what programs and the UI send; a program names no origin."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            hosts, origins = headers.getlist("host"), headers.getlist("origin")
            named = len(hosts) == 1 and hosts[0].lower() in self.hosts
            if not named or not {*map(str.lower, origins)} <= self.origins:
                await self._refuse(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008, "reason": "foreign origin"})
            return
        text = "Only the UI and programs of this machine may use this server.\n"
        await PlainTextResponse(text, status_code=403)(scope, receive, send)


def main() -> None:
    """Serve API and UI where Prefect's settings say."""
    settings = get_current_settings().server.api
    app = create_app(final=True)
    app.add_middleware(OwnPagesOnly, origins=settings.cors_allowed_origins)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        timeout_keep_alive=settings.keepalive_timeout,
        log_level=get_current_settings().server.logging_level.lower(),
    )


if __name__ == "__main__":
    main()
