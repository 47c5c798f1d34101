"""The websocket and HTTP server every simulated exchange shares: sockets, timers, pings and back-pressure, and no protocol.

What is served is an `Exchange` (see there how a venue plugs in). The server moves bytes between its sessions and the library's
connections. Pushed messages skip the library's framing: server frames are unmasked, so a header and the payload are
concatenated, many frames a write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from volsurf.sim._outlet import Outlet
from volsurf.sim.exchange import BURST_BYTES, Clock, Exchange, HttpAnswer, real_clock
from volsurf.sim.faults import Cut, FaultRun, FaultScript

_COUNTED = (
    "connections",
    "messages_sent",
    "bytes_sent",
    "heartbeats_probed",
    "heartbeats_answered",
    "heartbeats_missed",
)
"""Counters that are there, and 0, from the start."""
_CLOSE_SECONDS = 1.0
SLOW_SECONDS = 10.0
"""How long a client of a burst may leave its socket full."""


class _Connection(ServerConnection):
    # The library tells nobody of a pong it did not ask for itself; the session that sent the ping wants to know.
    on_pong: Callable[[bytes], None] | None = None

    def acknowledge_pings(self, data: bytes) -> None:
        if self.on_pong is not None:
            self.on_pong(data)
        super().acknowledge_pings(data)


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
        self.faults: FaultRun | None = None
        """What goes wrong, if anything: see `inject`."""
        self.rate = rate
        self.buffer_limit = buffer_limit
        self._host, self._port = host, port
        self._clock = clock
        profile = exchange.profile
        self._latency = (0.0, 0.0) if profile is None else (profile.latency_ms * 1e-3, profile.jitter_ms * 1e-3)
        # Delays are no part of the market's path; they only ought to be the same from run to run.
        self._rng = Random(exchange.market.seed)
        self._clients: dict[ServerConnection, Outlet] = {}
        self._server: Server | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._cuts: dict[ServerConnection, asyncio.Task[None]] = {}

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
        """Base of the HTTP pages: the venue's own, and /truth, /stats and /faults, which are no part of it."""
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
            create_connection=_Connection,
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
            for connection, outlet in list(self._clients.items()):
                outlet.finish()
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

    def inject(self, script: FaultScript, *, seed: int = 1) -> FaultRun:
        """Let things go wrong from now on, in place of what did so far; bursts suffer cuts and silences only.

        Args:
            script: its times count from this moment; entries for other venues are left out.
            seed: of which message is struck.
        """
        now = self._clock()
        self.faults = FaultRun(script, start_ns=now, seed=seed, venue=self.exchange.listing.venue)
        for outlet in self._clients.values():
            outlet.wire = self.faults.open(now, outlet.session)
        return self.faults

    async def serve_forever(self) -> None:
        """Run until cancelled, or until a task of the server fails."""
        await asyncio.gather(*self._pumps)

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            for connection in list(self._clients):
                connection.transport.abort()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        target, now = urlsplit(request.path), self._clock()
        if target.path == "/stats":
            return _response((HTTPStatus.OK, msgspec.json.encode(self.stats)))
        if target.path == "/faults":
            return _response((HTTPStatus.OK, self._faults_page()))
        is_endpoint = self.exchange.accepts(target.path)
        if self.exchange.in_maintenance(now) and target.path != "/truth":
            self.exchange.counters["maintenance_refused"] += 1
            return _response(self.exchange.maintenance_answer)
        if is_endpoint:
            if len(self._clients) >= self.exchange.max_connections:
                self.exchange.counters["connections_refused"] += 1
                return _response(self.exchange.too_many_connections)
            return None
        answer = self.exchange.http(target.path, dict(parse_qsl(target.query)), now)
        if answer is None:
            answer = (HTTPStatus.NOT_FOUND, b'{"error":"no such page; there are /truth, /stats and /faults"}')
        return _response(answer)

    def _faults_page(self) -> bytes:
        if self.faults is None:
            return b'{"script":"","counts":{},"records":[]}'
        log = self.faults.log
        page = {"script": str(self.faults.script), "counts": log.counts, "records": list(log.records)[-1000:]}
        return msgspec.json.encode(page)

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        now = self._clock()
        session = self.exchange.open_session(now, connection.request.path)
        wire = self.faults.open(now, session) if self.faults is not None else None
        counters = self.exchange.counters
        outlet = Outlet(connection, session, wire, self._latency, counters, self._rng)
        self._clients[connection] = outlet
        if isinstance(connection, _Connection):
            connection.on_pong = lambda payload: session.receive_pong(payload, self._clock())
        counters["connections"] += 1
        try:
            async for message in connection:
                now = self._clock()
                session.receive(message, now)
                counters["messages_received"] += 1
                self._flush(outlet, now)
                if connection not in self._clients:
                    # It was cut; what it still asks for is nobody's business.
                    break
        except ConnectionClosed:
            pass
        finally:
            self._clients.pop(connection, None)
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
            if self.faults is not None:
                clients = [(o.wire.client, o.session) for o in self._clients.values() if o.wire is not None]
                self.faults.step(now, self.exchange, clients)
            self.exchange.advance(now)
            for outlet in list(self._clients.values()):
                self._tick(outlet, now)

    def _tick(self, outlet: Outlet, now: int) -> None:
        outlet.session.timer(now)
        self._flush(outlet, now, outlet.session.control_pings(now))
        if outlet.wire is not None and (cut := outlet.wire.cut(now)) is not None:
            self._cut(outlet.connection, cut)
        if self.exchange.in_maintenance(now):
            self._cut(outlet.connection, Cut(*self.exchange.maintenance_close))

    def _flush(self, outlet: Outlet, now: int, pings: list[bytes] | None = None) -> None:
        outlet.flush(now, pings or ())
        if outlet.unread > self.buffer_limit:
            self._cut_slow(outlet)
        if outlet.session.closing and not outlet.is_silent(now):
            self._cut(outlet.connection, Cut(*outlet.session.closing))

    def _cut_slow(self, outlet: Outlet) -> None:
        if outlet.connection not in self._clients:
            return
        self.exchange.counters["cut_too_slow"] += 1
        self._cut(outlet.connection, Cut(*self.exchange.too_slow))

    def _cut(self, connection: ServerConnection, cut: Cut) -> None:
        outlet = self._clients.pop(connection, None)
        if outlet is None:
            return
        outlet.session.closed()
        if not cut.code:
            connection.transport.abort()
            return
        outlet.finish()
        task = asyncio.create_task(_close(connection, cut.code, cut.reason))
        self._cuts[connection] = task
        task.add_done_callback(lambda _: self._cuts.pop(connection, None))

    async def _burst_forever(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        last, owed = loop.time(), 0.0
        while True:
            # At full speed a write happens whenever a socket has room; at a given rate, every two milliseconds.
            await asyncio.sleep(0.002 if rate else 0.0)
            now = self._clock()
            readers = [
                outlet
                for outlet in self._clients.values()
                if outlet.connection.state is State.OPEN and outlet.session.burst_bytes and not outlet.is_silent(now)
            ]
            moment = loop.time()
            # What could not be sent while nobody listened, or while this process slept, is not owed.
            owed = min(owed + rate * (moment - last), 0.25 * rate) if readers else 0.0
            last = moment
            sent = 0
            for outlet in readers:
                if self._is_full(outlet, moment):
                    continue
                room = int(owed / len(readers)) if rate else max(1, BURST_BYTES // outlet.session.burst_bytes)
                sent += self._burst(outlet, room, now)
            owed -= sent if rate else 0.0
            if not rate and not sent:
                await asyncio.sleep(0.0005)

    def _is_full(self, outlet: Outlet, moment: float) -> bool:
        # A burst is never heaped on what is still unread, else a reader's pause of a tenth of a second would cost it the
        # connection; one that leaves its socket full for seconds is cut like any slow reader.
        unread = outlet.connection.transport.get_write_buffer_size()
        if unread <= (BURST_BYTES if self.rate else 0):
            outlet.full_since = None
            return False
        if outlet.full_since is None:
            outlet.full_since = moment
        if moment - outlet.full_since > SLOW_SECONDS:
            self._cut_slow(outlet)
        return True

    def _burst(self, outlet: Outlet, messages: int, now: int) -> int:
        sent, connection = 0, outlet.connection
        while sent < messages and connection.state is State.OPEN and not connection.transport.is_closing():
            data, count = outlet.session.burst(messages - sent, now)
            if not count:
                break
            outlet.write(data, count)
            sent += count
            unread = connection.transport.get_write_buffer_size()
            if unread > self.buffer_limit:
                self._cut_slow(outlet)
            if unread > BURST_BYTES:
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


def _response(answer: HttpAnswer) -> Response:
    status, body = HTTPStatus(answer[0]), answer[1]
    headers = Headers(
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    )
    if len(answer) == 3:
        headers.update(answer[2])
    return Response(status.value, status.phrase, headers, body)
