"""The published lists over HTTP: prepared answers of one version, swapped whole while running."""

import threading

from fastapi import FastAPI, HTTPException, Request, Response

from tasks.publishing.manifest import CURRENT, Manifest, current, folder_of
from tasks.publishing.recommendation_lookup import answers, similar


class Swapping:
    """The current version in memory; the next one is loaded beside the requests.

    Attributes:
        held: the manifest, and every user's answer; that of the empty name is for strangers.
    """

    held: tuple[Manifest, dict[str, bytes]]

    def __init__(self, experiment: str) -> None:
        self._experiment, self._loader = experiment, threading.Thread()
        self._load()

    def _load(self) -> None:
        manifest = current(self._experiment)
        assert manifest is not None
        self.held = manifest, dict(answers(manifest))

    def now(self) -> tuple[Manifest, dict[str, bytes]]:
        """Return what is held; a look at the link may start to load the next version.

        If that one is damaged, the error is printed, and the version before goes on.
        """
        link = folder_of(self._experiment) / CURRENT
        if link.resolve().name != self.held[0].version and not self._loader.is_alive():
            self._loader = threading.Thread(target=self._load, daemon=True)
            self._loader.start()
        return self.held


def lists_api(experiment: str) -> FastAPI:
    """Make the application that serves an experiment's published version."""
    app, swapping = FastAPI(title="LLM-KT Flow: published lists"), Swapping(experiment)

    def answer(manifest: Manifest, request: Request, body: bytes) -> Response:
        etag = f'"{manifest.version}"'
        headers = {"etag": etag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    @app.get("/recommend/{user:path}")
    async def _recommend(user: str, request: Request) -> Response:
        """List a user's recommendations; what is popular, with user_id null, for strangers."""
        manifest, lists = swapping.now()
        return answer(manifest, request, lists.get(user) or lists[""])

    @app.get("/similar/{item:path}")
    def _similar(item: str, request: Request, k: int = 10) -> Response:
        """List the items whose published vectors are closest by cosine."""
        manifest, _ = swapping.now()
        body = similar(manifest, item, k)
        if body is None:
            raise HTTPException(404, "this item has no vector in the current version")
        return answer(manifest, request, body)

    @app.get("/version")
    async def _version(request: Request) -> Response:
        """Show the manifest of the version that is served."""
        manifest, _ = swapping.now()
        return answer(manifest, request, manifest.model_dump_json().encode())

    @app.get("/healthz")
    async def _healthz() -> dict[str, str]:
        """Say that lists can be served, and of which version."""
        return {"status": "ok", "version": swapping.now()[0].version}

    return app
