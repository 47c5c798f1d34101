"""The socket under one `Venue`: connect, send, receive, keep time, and open again when it ends.

Heartbeats come first by construction: what one read of the socket brought (at most 256 KB, a few milliseconds of parsing) is
answered before the next read, answers to heartbeats ahead of everything. Between two reads the event loop runs its timers,
so no rate of messages can starve them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidURI, WebSocketException
from websockets.uri import parse_uri

from volsurf.errors import ConfigError
from volsurf.feeds._backoff import Backoff
from volsurf.feeds._http import LOOPBACK, HttpRequests
from volsurf.feeds._socket import MOST_BYTES, FastConnection
from volsurf.feeds.protocol import HttpRequest, Venue
from volsurf.feeds.tap import Tap

_log = logging.getLogger("volsurf.feeds")
_T = TypeVar("_T")

_LONGEST_WAIT = 1.0
"""Seconds between two calls of `Venue.timer` at most, so that a step of the clock is seen as one."""
_CLOSE_TIMEOUT = 1.0


class Handle(Protocol):
    """A timer that can be stopped."""

    def cancel(self) -> None:
        """Do not fire."""


CallLater = Callable[[float, Callable[[], None]], Handle]
"""Seconds and what to call then: `loop.call_later`, or a test's own."""


class ConnectionStats(msgspec.Struct):
    """What one connection has done since it was made; messages and bytes are those of the sockets closed so far."""

    attempts: int = 0
    opened: int = 0
    reconnects: int = 0
    """Sockets opened after the first."""
    messages: int = 0
    bytes_received: int = 0
    heartbeat_late_max_ns: int = 0
    """Longest time from the read that brought a test request to its answer being written."""
    timer_late_max_ns: int = 0
    """Longest time the event loop was late in calling the timer: what a message may have waited in the kernel."""

    def __add__(self, other: ConnectionStats) -> ConnectionStats:
        """Of two connections together."""
        return ConnectionStats(
            attempts=self.attempts + other.attempts,
            opened=self.opened + other.opened,
            reconnects=self.reconnects + other.reconnects,
            messages=self.messages + other.messages,
            bytes_received=self.bytes_received + other.bytes_received,
            heartbeat_late_max_ns=max(self.heartbeat_late_max_ns, other.heartbeat_late_max_ns),
            timer_late_max_ns=max(self.timer_late_max_ns, other.timer_late_max_ns),
        )


class Connection:
    """Runs one `Venue` on one socket after another, and makes its HTTP requests while a socket is open.

    Args:
        number: of the connection within its feed. tap: told of every call into the venue.
        clock: ns UTC, what the venue is told. call_later: the timer; `loop.call_later` where not given.
        rng: jitter of the pauses. connect_timeout: seconds for TCP, TLS and the handshake together.
        proxy: as in websockets: True takes it from the environment (never for loopback), None goes direct.
        ssl_context: for private authorities.

    Raises:
        ConfigError: the venue's URL is not a websocket's.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        number: int = 0,
        tap: Tap | None = None,
        clock: Callable[[], int] = time.time_ns,
        call_later: CallLater | None = None,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float = 10.0,
        proxy: str | bool | None = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        try:
            address = parse_uri(venue.url)
        except InvalidURI as error:
            raise ConfigError(f"not a websocket address: {venue.url!r}") from error
        self.venue = venue
        self.number = number
        self.stats = ConnectionStats()
        self._tap, self._clock, self._call_later = tap, clock, call_later
        self._backoff = backoff or Backoff(rng or random.Random())
        # A proxy could not reach a simulator on this machine.
        direct = proxy is True and address.host in LOOPBACK
        self._options: dict[str, Any] = {"proxy": None if direct else proxy or None, "open_timeout": connect_timeout}
        if address.secure and ssl_context is not None:
            self._options["ssl"] = ssl_context
        self._http = HttpRequests(self._on_answer, proxy=proxy, ssl_context=ssl_context)
        self._socket: FastConnection | None = None
        self._timer: Handle | None = None
        self._timer_at = 0.0
        self._over: asyncio.Future[str] | None = None
        self._answered = 0

    @property
    def is_open(self) -> bool:
        """A socket is open now."""
        return self._socket is not None

    @property
    def messages(self) -> int:
        """Messages received so far, those of the open socket included."""
        return self.stats.messages + (0 if self._socket is None else self._socket.messages)

    @property
    def last_message_ns(self) -> int:
        """When the open socket last brought something, ns UTC; 0 where none is open."""
        return 0 if self._socket is None else self._socket.now

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set.

        Raises:
            ConfigError: the venue says that connecting again cannot help, and why.
        """
        try:
            while not stop.is_set():
                reason = await self._once(stop)
                if self.venue.fatal is not None:
                    raise ConfigError(self.venue.fatal)
                if stop.is_set():
                    break
                pause = max(self._backoff.next(), (self.venue.not_before - self._clock()) / 1e9)
                _log.warning("%s: %s; connecting again in %.1f s", self.venue.url, reason, pause)
                await self._pause(pause, stop)
        finally:
            await self._http.close()

    async def _once(self, stop: asyncio.Event) -> str:
        """One socket from opening to closing; returns why it ended. The venue hears of it in every case."""
        self.stats.attempts += 1
        reason = "stopped"
        try:
            socket = await _unless(stop, self._open())
            if socket is not None:
                reason = await self._serve(socket, stop)
        except (OSError, TimeoutError, UnicodeError, WebSocketException) as error:
            # Refused, no such host, no TLS, no answer to the handshake, HTTP 429 instead of it: all may pass.
            reason = _sentence(error)
        finally:
            now = self._clock()
            if self._tap is not None:
                self._tap.disconnected(self.number, now, reason)
            self.venue.disconnected(now, reason)
            # Whatever it still had to say was for this socket.
            self.venue.data_to_send()
            self.venue.http_requests()
        return reason

    async def _open(self) -> FastConnection:
        connection = await connect(
            self.venue.url,
            # Captured tickers of 745 bytes shrink to 114, but inflating one takes longer than decoding it, and every frame
            # would have to go through the library's own parser.
            compression=None,
            ping_interval=None,  # the venue's own heartbeat is what it listens to
            close_timeout=_CLOSE_TIMEOUT,
            max_size=MOST_BYTES,
            create_connection=functools.partial(FastConnection, clock=self._clock),  # type: ignore[arg-type]
            **self._options,
        )
        assert isinstance(connection, FastConnection)
        return connection

    async def _serve(self, socket: FastConnection, stop: asyncio.Event) -> str:
        self.stats.reconnects += self.stats.opened > 0
        self.stats.opened += 1
        self._socket = socket
        self._over = asyncio.get_running_loop().create_future()
        closed = asyncio.ensure_future(socket.wait_closed())
        try:
            _log.info("%s: connected", self.venue.url)
            now = self._clock()
            if self._tap is not None:
                self._tap.opened(self.number, now, self.venue.url)
                self._tap.connected(self.number, now)
            self.venue.connected(now)
            socket.start(self.venue.receive if self._tap is None else self._tapped(self._tap), self._after_read)
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait((closed, stopped, self._over), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if self._over.done():
                return self._over.result()
            if stop.is_set():
                return "stopped"
            code = "without a word" if socket.close_code in (None, 1006) else f"with code {socket.close_code}"
            return f"closed by the venue {code} {socket.close_reason or ''}".rstrip()
        finally:
            self._cancel_timer()
            socket.halt()
            self.stats.messages += socket.messages
            self.stats.bytes_received += socket.bytes_received
            self._socket = None
            await self._http.cancel()
            await _close(socket, closed)

    def flush(self) -> None:
        """Send what the venue has to say now, after somebody else than its socket has spoken to it."""
        self._after_read()

    def _tapped(self, tap: Tap) -> Callable[[bytes, int], None]:
        receive, received, number = self.venue.receive, tap.received, self.number

        def take(data: bytes, now: int) -> None:
            received(number, now, data)
            receive(data, now)

        return take

    def _after_read(self) -> None:
        """Send what the last read, timer or answer made the venue say, and set the timer."""
        socket, venue = self._socket, self.venue
        if socket is None or self._over is None:
            return
        messages = venue.data_to_send()
        if messages:
            socket.post(messages)
            if self._tap is not None:
                now = self._clock()
                for message in messages:
                    self._tap.sent(self.number, now, message)
            late = self._clock() - socket.now
            answered = venue.counters["heartbeats_answered"]
            if answered != self._answered:
                self._answered = answered
                self.stats.heartbeat_late_max_ns = max(self.stats.heartbeat_late_max_ns, late)
        requests = venue.http_requests()
        if requests:
            if self._tap is not None:
                now = self._clock()
                for request in requests:
                    self._tap.http_request(self.number, now, request)
            self._http.make(requests)
        failure = venue.failure
        if failure is not None:
            if not self._over.done():
                self._over.set_result(failure)
            self._cancel_timer()
            return
        if venue.is_ready:
            self._backoff.reset()
        self._arm()

    def _arm(self) -> None:
        deadline = self.venue.next_deadline
        if deadline is None:
            self._cancel_timer()
            return
        loop = asyncio.get_running_loop()
        delay = min(_LONGEST_WAIT, max(0.0, (deadline - self._clock()) / 1e9))
        at = loop.time() + delay
        # Set again only for something earlier: this runs after every read, and an early timer does no harm.
        if self._timer is not None and self._timer_at <= at + 0.001:
            return
        self._cancel_timer()
        self._timer_at = at
        self._timer = (self._call_later or loop.call_later)(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        late = asyncio.get_running_loop().time() - self._timer_at
        self.stats.timer_late_max_ns = max(self.stats.timer_late_max_ns, int(late * 1e9))
        now = self._clock()
        if self._tap is not None:
            self._tap.timer(self.number, now)
        self.venue.timer(now)
        self._after_read()

    def _on_answer(self, request: HttpRequest, status: int, body: bytes) -> None:
        now = self._clock()
        if self._tap is not None:
            self._tap.http_answer(self.number, now, request.key, status, body)
        self.venue.receive_http(request.key, status, body, now)
        self._after_read()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _pause(self, seconds: float, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        handle = (self._call_later or loop.call_later)(seconds, wake)
        await _unless(stop, over)
        handle.cancel()


async def _unless(stop: asyncio.Event, work: Awaitable[_T]) -> _T | None:
    """What an awaitable returns; None where the event was set first, and the work is cancelled."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for waiting in (task, stopped):
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait((waiting,))


async def _close(socket: FastConnection, closed: asyncio.Future[None]) -> None:
    """Close politely, then not."""
    try:
        await asyncio.wait_for(socket.close(), _CLOSE_TIMEOUT)
    except TimeoutError:
        pass
    finally:
        socket.transport.abort()
        await asyncio.wait((closed,))


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer to the opening handshake in time"
    if isinstance(error, (InvalidHandshake, InvalidProxy)):
        return f"the handshake was refused: {error}"
    return f"could not connect: {error}"
