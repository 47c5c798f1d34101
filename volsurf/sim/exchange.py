"""The websocket server every simulated exchange shares: sockets, timers and back-pressure, and nothing of any protocol.

A venue is an `Exchange` (one market, one book of listings) and a `Session` per client; both are free of I/O and are told the
time. The shell here moves bytes between them and the library's connections. Pushed messages skip the library's framing:
server frames are unmasked, so a header and the payload are concatenated, many frames a write.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

Clock = Callable[[], int]
"""Returns nanoseconds UTC."""

_HEADER_SHORT = struct.Struct("!BB")
_HEADER_MEDIUM = struct.Struct("!BBH")
_HEADER_LONG = struct.Struct("!BBQ")
_FINAL_TEXT = 0x81

_COUNTED = (
    "connections",
    "messages_sent",
    "bytes_sent",
    "heartbeats_probed",
    "heartbeats_answered",
    "heartbeats_missed",
)
"""Counters that are there, and 0, from the start."""
BURST_BYTES = 256 * 1024
"""Size of one write of a burst: about what a loopback socket takes without being waited for."""

_CLOSE_SECONDS = 1.0
SLOW_SECONDS = 10.0
"""How long a client of a burst may leave its socket full."""


def text_frame(payload: bytes) -> bytes:
    """An unmasked, final text frame (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        return _HEADER_SHORT.pack(_FINAL_TEXT, size) + payload
    if size < 65_536:
        return _HEADER_MEDIUM.pack(_FINAL_TEXT, 126, size) + payload
    return _HEADER_LONG.pack(_FINAL_TEXT, 127, size) + payload


def real_clock() -> int:
    """Wall clock, ns UTC."""
    return time.time_ns()


class Session(ABC):
    """One client of one exchange, without its socket. Times are ns of the shell's real clock."""

    @abstractmethod
    def receive(self, data: str | bytes, now: int) -> None:
        """Take one message of the client."""

    @abstractmethod
    def timer(self, now: int) -> None:
        """Called at least at every tick: heartbeats, deadlines."""

    @abstractmethod
    def data_to_send(self) -> list[bytes]:
        """Payloads of text messages to send, in order."""

    @property
    @abstractmethod
    def closing(self) -> tuple[int, str] | None:
        """Close code and reason once the venue has had enough of this client."""

    @abstractmethod
    def closed(self) -> None:
        """The socket is gone."""

    def burst(self, messages: int, now: int) -> tuple[bytes, int]:
        """Framed market data with live stamps, up to so many messages, as cheaply as can be; and how many they are."""
        del messages, now
        return b"", 0

    @property
    def burst_bytes(self) -> int:
        """Mean size of one message of a burst; 0 while there is nothing to send."""
        return 0


class Exchange(ABC):
    """One simulated venue, without its sockets."""

    path: str
    """Of the websocket endpoint."""
    tick_ns: int = 100_000_000
    max_connections: int = 32
    too_many_connections = (HTTPStatus.TOO_MANY_REQUESTS, b"too many connections")
    too_slow = (1008, "connection_too_slow")

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    @abstractmethod
    def open_session(self, now: int) -> Session:
        """A client connected."""

    @abstractmethod
    def advance(self, now: int) -> None:
        """Move the market to `now` and put what changed into the sessions' outboxes."""

    def http(self, path: str, query: dict[str, str], now: int) -> tuple[int, bytes] | None:
        """Status and JSON body of an HTTP request, or None where there is no such page."""
        del path, query, now
        return None


class ExchangeServer:
    """Serves an `Exchange` on a loopback port: `async with ExchangeServer(exchange) as server: server.url`.

    Args:
        port: 0 takes a free one.
        rate: market-data messages per second over all clients; None leaves the exchange's own pace, 0 is as many as the
            clients read.
        buffer_limit: bytes a client may leave unread before it is cut as too slow.
        clock: real time of sessions and ticks, ns. The market's own clock belongs to the exchange.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rate: float | None = None,
        buffer_limit: int = 16 * 1024 * 1024,
        clock: Clock = real_clock,
    ) -> None:
        self.exchange = exchange
        self.rate = rate
        self.buffer_limit = buffer_limit
        self._host, self._port = host, port
        self._clock = clock
        self._clients: dict[ServerConnection, Session] = {}
        self._server: Server | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._cuts: dict[ServerConnection, asyncio.Task[None]] = {}
        self._full_since: dict[ServerConnection, float] = {}

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://{self._host}:{self._port}{self.exchange.path}"

    @property
    def http_url(self) -> str:
        """Base of the HTTP pages, which are no part of the venue: /truth and /stats."""
        return f"http://{self._host}:{self._port}"

    @property
    def stats(self) -> dict[str, int]:
        """Counters: clients, messages and bytes sent, heartbeats probed, answered and missed, …"""
        return {
            "clients": len(self._clients),
            **dict.fromkeys(_COUNTED, 0),
            **dict(sorted(self.exchange.counters.items())),
        }

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> None:
        """Listen; from here on the market runs."""
        quiet = logging.getLogger("volsurf.sim.websockets")
        # Clients come and go by design here; what matters of it is in the counters.
        quiet.setLevel(logging.CRITICAL)
        self._server = await serve(
            self._serve,
            self._host,
            self._port,
            process_request=self._process_request,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_SECONDS,
            max_size=4 * 1024 * 1024,
            logger=quiet,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self.exchange.advance(self._clock())
        self._pumps = [asyncio.create_task(self._tick_forever(), name="exchange-ticks")]
        if self.rate is not None:
            self._pumps.append(asyncio.create_task(self._burst_forever(self.rate), name="exchange-bursts"))
        for task in self._pumps:
            task.add_done_callback(self._pump_ended)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection and free the port."""
        for task in self._pumps:
            task.cancel()
        ended = await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._server is not None:
            # A client that does not read would hold the closing handshake up: cut those first.
            for connection in list(self._clients):
                if connection.transport.get_write_buffer_size() > 0:
                    connection.transport.abort()
            self._server.close(code=1001)
            await self._server.wait_closed()
            self._server = None
        if self._cuts:
            await asyncio.wait(self._cuts.values())
        # A bug in a tick must not look like a silent market: it ends the connections, and is raised here.
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def serve_forever(self) -> None:
        """Run until cancelled, or until a task of the server fails."""
        await asyncio.gather(*self._pumps)

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            for connection in list(self._clients):
                connection.transport.abort()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        target = urlsplit(request.path)
        if target.path == self.exchange.path:
            if len(self._clients) >= self.exchange.max_connections:
                self.exchange.counters["connections_refused"] += 1
                return _response(*self.exchange.too_many_connections)
            return None
        query = dict(parse_qsl(target.query))
        if target.path == "/stats":
            return _response(HTTPStatus.OK, msgspec.json.encode(self.stats))
        answer = self.exchange.http(target.path, query, self._clock())
        if answer is None:
            return _response(HTTPStatus.NOT_FOUND, b'{"error":"no such page; there are /truth and /stats"}')
        return _response(HTTPStatus(answer[0]), answer[1])

    async def _serve(self, connection: ServerConnection) -> None:
        session = self.exchange.open_session(self._clock())
        self._clients[connection] = session
        self.exchange.counters["connections"] += 1
        try:
            async for message in connection:
                session.receive(message, self._clock())
                self.exchange.counters["messages_received"] += 1
                self._flush(connection, session)
                if connection not in self._clients:
                    # It was cut; what it still asks for is nobody's business.
                    break
        except ConnectionClosed:
            pass
        finally:
            self._clients.pop(connection, None)
            self._full_since.pop(connection, None)
            session.closed()
        if (cut := self._cuts.get(connection)) is not None:
            # When this returns the library says goodbye in its own words: the venue's come first.
            await asyncio.wait([cut])

    async def _tick_forever(self) -> None:
        period = self.exchange.tick_ns * 1e-9
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # After a stall the missed ticks are not made up for: the market jumps, as a suspended venue's would.
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())
            now = self._clock()
            self.exchange.advance(now)
            for connection, session in list(self._clients.items()):
                session.timer(now)
                self._flush(connection, session)

    def _flush(self, connection: ServerConnection, session: Session) -> None:
        payloads = session.data_to_send()
        if payloads and connection.state is State.OPEN:
            data = b"".join(map(text_frame, payloads))
            self._write(connection, data, len(payloads))
        if session.closing:
            self._cut(connection, *session.closing)

    def _write(self, connection: ServerConnection, data: bytes, messages: int) -> None:
        if connection.transport.is_closing():
            # The socket broke and the library has not yet been told.
            return
        connection.transport.write(data)
        self.exchange.counters["messages_sent"] += messages
        self.exchange.counters["bytes_sent"] += len(data)
        if connection.transport.get_write_buffer_size() > self.buffer_limit:
            self._cut_slow(connection)

    def _cut_slow(self, connection: ServerConnection) -> None:
        if connection not in self._clients:
            return
        self.exchange.counters["cut_too_slow"] += 1
        self._cut(connection, *self.exchange.too_slow)

    def _cut(self, connection: ServerConnection, code: int, reason: str) -> None:
        session = self._clients.pop(connection, None)
        self._full_since.pop(connection, None)
        if session is None:
            return
        session.closed()
        task = asyncio.create_task(_close(connection, code, reason))
        self._cuts[connection] = task
        task.add_done_callback(lambda _: self._cuts.pop(connection, None))

    async def _burst_forever(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        last, owed = loop.time(), 0.0
        while True:
            # At full speed a write happens whenever a socket has room; at a given rate, every two milliseconds.
            await asyncio.sleep(0.002 if rate else 0.0)
            readers = [(c, s) for c, s in self._clients.items() if c.state is State.OPEN and s.burst_bytes]
            moment = loop.time()
            # What could not be sent while nobody listened, or while this process slept, is not owed.
            owed = min(owed + rate * (moment - last), 0.25 * rate) if readers else 0.0
            last = moment
            now = self._clock()
            sent = 0
            for connection, session in readers:
                if self._is_full(connection, moment):
                    continue
                room = int(owed / len(readers)) if rate else max(1, BURST_BYTES // session.burst_bytes)
                sent += self._burst(connection, session, room, now)
            owed -= sent if rate else 0.0
            if not rate and not sent:
                await asyncio.sleep(0.0005)

    def _is_full(self, connection: ServerConnection, moment: float) -> bool:
        # A burst is never heaped on what is still unread, else a reader's pause of a tenth of a second would cost it the
        # connection; one that leaves its socket full for seconds is cut like any slow reader.
        unread = connection.transport.get_write_buffer_size()
        if unread <= (BURST_BYTES if self.rate else 0):
            self._full_since.pop(connection, None)
            return False
        if moment - self._full_since.setdefault(connection, moment) > SLOW_SECONDS:
            self._cut_slow(connection)
        return True

    def _burst(self, connection: ServerConnection, session: Session, messages: int, now: int) -> int:
        sent = 0
        while sent < messages and connection.state is State.OPEN and not connection.transport.is_closing():
            data, count = session.burst(messages - sent, now)
            if not count:
                break
            self._write(connection, data, count)
            sent += count
            if connection.transport.get_write_buffer_size() > BURST_BYTES:
                break
        return sent


async def _close(connection: ServerConnection, code: int, reason: str) -> None:
    # The library's close() first waits, without a limit, until everything before the close frame is sent; a client that
    # does not read would keep its connection that way.
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()


def _response(status: HTTPStatus, body: bytes) -> Response:
    headers = Headers(
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    )
    return Response(status.value, status.phrase, headers, body)
