"""The HTTP client under OpenAI's: a whole answer in time, of bounded size, or an error.

Every request passes here, OpenAI's own retries included, so this is where limits and budget are
kept to, and where an error inside an answer of status 200 becomes the error that it is.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2 as httpx
import openai

from models.config import LLM, Embeddings
from models.llm.completion import error_in, parsed, usage_of
from models.llm.failures import status_of
from tasks.llm.budget import current_reservation
from tasks.llm.endpoint import PATHS, client_options
from tasks.llm.rate_limit import Limits

MOST_BYTES = 256 * 2**20
"""Of one answer, unpacked."""


class Api(NamedTuple):
    """A client, and what waits for its answers."""

    client: openai.AsyncOpenAI
    wait: Callable[[Any], Any]


@contextmanager
def one_at_a_time(config: LLM | Embeddings, key: str) -> Iterator[Api]:
    """Open a client for requests one after the other."""

    async def opened() -> openai.AsyncOpenAI:
        http_client = HttpClient(config.total_seconds)
        return openai.AsyncOpenAI(**client_options(config, key), http_client=http_client)

    with asyncio.Runner() as runner:
        client = runner.run(opened())
        try:
            yield Api(client, runner.run)
        finally:
            runner.run(client.close())


class HttpClient(openai.DefaultAioHttpClient):
    """Sends one at a time, at most `total_seconds` from its first byte to the answer's last."""

    def __init__(self, total_seconds: float, limits: Limits | None = None) -> None:
        # A redirect would take the key to another address.
        super().__init__(follow_redirects=False)
        self._total_seconds, self._limits = total_seconds, limits

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and read its answer, whole; a late one is a time-out."""
        reservation = current_reservation.get()
        if self._limits:
            await self._limits.admit(request.content)
        if reservation and not reservation.sent():
            raise openai.OpenAIError("over budget")  # of all errors, the client retries but these
        try:
            async with asyncio.timeout(self._total_seconds):
                response = await self._whole(
                    await super().send(request, **options | {"stream": True})
                )
        except TimeoutError:
            raise httpx.ReadTimeout("the answer took too long", request=request) from None
        if self._limits:
            used = usage_of(parsed(response.content))
            known = None if None in used else sum(filter(None, used))
            self._limits.correct(request.content, known)
        if reservation:
            reservation.answered()
        return _as_it_is(response)

    async def _whole(self, response: httpx.Response) -> httpx.Response:
        """Read a response to its end."""
        parts, size = list[bytes](), 0
        try:
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise httpx.ReadError("the answer is too large", request=response.request)
        finally:
            await response.aclose()
        return _rebuilt(response, response.status_code, b"".join(parts))


def _as_it_is(response: httpx.Response) -> httpx.Response:
    """Give an error inside a success the status that it names, so that it is retried as one."""
    asks = response.request.url.path.endswith(PATHS)  # others may list errors
    if response.status_code != 200 or b'"error"' not in response.content or not asks:
        return response
    error = error_in(parsed(response.content))
    if error is None:
        return response
    return _rebuilt(response, status_of(error), response.content)


def _rebuilt(response: httpx.Response, status: int, content: bytes) -> httpx.Response:
    dropped = {"content-encoding", "content-length", "transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.items() if name not in dropped]
    return httpx.Response(status, headers=headers, content=content, request=response.request)
