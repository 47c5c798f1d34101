"""Servers on loopback for the socket shells: a Deribit that can be told to misbehave, and raw TCP ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.feeds.deribit_frames import Row, standard_listings
from volsurf.feeds._backoff import Backoff
from volsurf.feeds.connection import Handle

Handler = Callable[[ServerConnection], Awaitable[None]]
TIMEOUT = 20.0
"""Seconds after which a test gives up waiting; nothing takes this long."""


@contextlib.asynccontextmanager
async def websocket_server(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """A websocket server; yields its URL."""
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def tcp_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server of raw bytes; yields the URL of a websocket it might be."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class Peer:
    """A Deribit that answers everything, and does on top what a test tells it.

    Attributes:
        connections: how many there were. requests: methods asked for, in order. open: those connected now.
        answers: False to answer nobody. muted: connections that get no answer any more.
        when_ready: called with each connection once it has subscribed; what it returns is awaited beside the answering.
    """

    def __init__(self, listings: dict[tuple[str, str], list[Row]] | None = None) -> None:
        self.listings = standard_listings() if listings is None else listings
        self.connections = 0
        self.requests: list[str] = []
        self.open: set[ServerConnection] = set()
        self.answers = True
        self.muted: set[ServerConnection] = set()
        self.when_ready: Handler | None = None
        self.heard_test = asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        """Serve one connection to its end."""
        self.connections += 1
        self.open.add(connection)
        extra: asyncio.Future[None] | None = None
        try:
            async for message in connection:
                request = json.loads(message)
                self.requests.append(request["method"])
                if request["method"] == "public/test":
                    self.heard_test.set()
                if not self.answers or connection in self.muted:
                    continue
                await connection.send(json.dumps(self.answer(request)))
                if request["method"] == "public/subscribe" and self.when_ready is not None and extra is None:
                    extra = asyncio.ensure_future(self.when_ready(connection))  # type: ignore[arg-type]
        except ConnectionClosed:
            pass
        finally:
            self.open.discard(connection)
            if extra is not None:
                extra.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                    await extra

    def answer(self, request: Row) -> Row:
        """The reply Deribit gives."""
        params = request["params"]
        result: Any = params.get("channels", "ok")
        if request["method"] == "public/get_instruments":
            result = self.listings.get((params["currency"], params["kind"]), [])
        return {"jsonrpc": "2.0", "id": request["id"], "result": result, "usOut": time.time_ns() // 1000}


class RecordingBackoff(Backoff):
    """Remembers the pauses it gave, and gives them a hundred times shorter."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.pauses: list[float] = []
        self.resets = 0

    def next(self) -> float:
        self.pauses.append(super().next())
        return self.pauses[-1] / 100

    def reset(self) -> None:
        self.resets += 1
        super().reset()


class FastWorld:
    """A clock and a timer that run so many times faster than the loop's: venue and shell live in the same hurry."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.start = time.time_ns()
        self.delays: list[float] = []

    def clock(self) -> int:
        """ns UTC of the fast world."""
        return self.start + int((time.time_ns() - self.start) * self.speed)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        """The loop's timer, in fast seconds."""
        self.delays.append(delay)
        return asyncio.get_running_loop().call_later(delay / self.speed, callback)


async def eventually(condition: Callable[[], object]) -> None:
    """Return as soon as a condition holds; fail after `TIMEOUT`."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)
