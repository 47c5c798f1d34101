"""HTTP beside one socket: what a venue asks for by `HttpRequest`, and the answers while that socket is open.

httpx is imported, and its client made (certificates are read), on a worker thread when the first request comes: both take a
good part of a second, in which the socket must be read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from volsurf.feeds.protocol import HttpRequest

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 32 << 20
"""A longer answer is none: the longest there is, a listing of all options of a venue, has a few MB."""
ANSWER_SECONDS = 20.0
"""For a whole answer, from asking to its last byte."""
_MOST_AT_ONCE = 8
LOOPBACK = ("localhost", "127.0.0.1", "::1")

OnAnswer = Callable[[HttpRequest, int, bytes], None]
"""The request, the status (0: no answer, and the body says why) and the body."""


class HttpRequests:
    """The HTTP requests of one connection.

    Args:
        on_answer: called on the loop with each answer that comes before `cancel`; once each, in the order they come.
        proxy: True takes it from the environment, None goes direct; never for loopback. ssl_context: for private authorities.
        seconds: for one answer. most_bytes: of one answer.
    """

    def __init__(
        self,
        on_answer: OnAnswer,
        *,
        proxy: str | bool | None = True,
        ssl_context: ssl.SSLContext | None = None,
        seconds: float = ANSWER_SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._on_answer = on_answer
        self._proxy, self._ssl_context = proxy, ssl_context
        self._seconds, self._most_bytes = seconds, most_bytes
        self._client: asyncio.Future[httpx.AsyncClient] | None = None
        self._tasks: set[asyncio.Task[tuple[int, bytes]]] = set()

    @property
    def outstanding(self) -> int:
        """Requests that have no answer yet."""
        return len(self._tasks)

    def make(self, requests: Iterable[HttpRequest]) -> None:
        """Start these; returns at once."""
        for request in requests:
            task = asyncio.ensure_future(self._answer(request))
            self._tasks.add(task)
            task.add_done_callback(lambda done, request=request: self._done(done, request))  # type: ignore[misc]

    async def cancel(self) -> None:
        """The socket is gone: whatever has not been answered never will be."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """As `cancel`, and close the client's own connections."""
        await self.cancel()
        if self._client is not None:
            making, self._client = self._client, None
            await asyncio.wait((making,))
            if making.exception() is None:
                await making.result().aclose()

    def _done(self, task: asyncio.Task[tuple[int, bytes]], request: HttpRequest) -> None:
        if task not in self._tasks:
            return  # cancelled: the socket it was asked on is gone
        self._tasks.discard(task)
        if not task.cancelled():
            self._on_answer(request, *task.result())

    async def _answer(self, request: HttpRequest) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._seconds):
                if self._client is None or (self._client.done() and self._client.exception() is not None):
                    self._client = asyncio.ensure_future(
                        asyncio.to_thread(_make_client, self._proxy, self._ssl_context, self._seconds)
                    )
                # Shielded: another request waits for the same client.
                client = await asyncio.shield(self._client)
                return await self._fetch(client, request)
        except TimeoutError:
            return 0, f"no answer within {self._seconds:g} s".encode()
        except Exception as error:
            # No such host, refused, broken off, not HTTP, a redirect to nowhere, a proxy that is none: all are no answer.
            return 0, f"{type(error).__name__}: {error}".rstrip(": ").encode()

    async def _fetch(self, client: httpx.AsyncClient, request: HttpRequest) -> tuple[int, bytes]:
        headers = ({"Content-Type": "application/json"} if request.body else {}) | dict(request.headers)
        async with client.stream(
            request.method, request.url, content=request.body or None, headers=headers
        ) as response:
            parts, size = [], 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > self._most_bytes:
                    return 0, f"an answer of more than {self._most_bytes} bytes".encode()
                parts.append(part)
            return response.status_code, b"".join(parts)


def _make_client(proxy: str | bool | None, ssl_context: ssl.SSLContext | None, seconds: float) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(
        # The authorities the sockets trust, not a list of httpx's own.
        verify=ssl_context or ssl.create_default_context(),
        trust_env=proxy is True,
        proxy=proxy if isinstance(proxy, str) else None,
        # A proxy could not reach a simulator on this machine. None stands for the direct way.
        mounts={f"all://{f'[{host}]' if ':' in host else host}": None for host in LOOPBACK},
        timeout=seconds,
        limits=httpx.Limits(max_connections=_MOST_AT_ONCE, max_keepalive_connections=2),
        headers={"User-Agent": "volsurf"},
    )
