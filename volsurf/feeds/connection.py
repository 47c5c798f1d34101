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
from volsurf.feeds._socket import MOST_BYTES, FastConnection
from volsurf.feeds.protocol import Venue

_log = logging.getLogger("volsurf.feeds")
_T = TypeVar("_T")

_LONGEST_WAIT = 1.0
"""Seconds between two calls of `Venue.timer` at most, so that a step of the clock is seen as one."""
_CLOSE_TIMEOUT = 1.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Handle(Protocol):
    """A timer that can be stopped."""

    def cancel(self) -> None:
        """Do not fire."""


CallLater = Callable[[float, Callable[[], None]], Handle]
"""Seconds and what to call then: `loop.call_later`, or a test's own."""


class Backoff:
    """Pauses between attempts: doubling from `first` to `most` seconds, each cut by up to half at random."""

    def __init__(self, rng: random.Random, *, first: float = 0.5, factor: float = 2.0, most: float = 30.0) -> None:
        self._rng, self._first, self._factor, self._most = rng, first, factor, most
        self._attempts = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        # A ceiling on the exponent: 2.0 ** 1024 overflows after a long night of failures.
        longest = min(self._most, self._first * self._factor ** min(self._attempts, 60))
        self._attempts += 1
        return longest * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The connection was ready: the next failure is a new one."""
        self._attempts = 0


class ConnectionStats(msgspec.Struct):
    """What one connection has done since it was made; messages and bytes are those of the sockets closed so far."""

    attempts: int = 0
    opened: int = 0
    messages: int = 0
    bytes_received: int = 0
    heartbeat_late_max_ns: int = 0
    """Longest time from the read that brought a test request to its answer being written."""
    timer_late_max_ns: int = 0
    """Longest time the event loop was late in calling the timer: what a message may have waited in the kernel."""


class Connection:
    """Runs one `Venue` on one socket after another. It makes no HTTP requests: no venue here asks for any.

    Args:
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
        self.stats = ConnectionStats()
        self._clock, self._call_later = clock, call_later
        self._backoff = backoff or Backoff(rng or random.Random())
        # A proxy could not reach a simulator on this machine.
        direct = proxy is True and address.host in _LOOPBACK
        self._options: dict[str, Any] = {"proxy": None if direct else proxy or None, "open_timeout": connect_timeout}
        if address.secure and ssl_context is not None:
            self._options["ssl"] = ssl_context
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
        while not stop.is_set():
            reason = await self._once(stop)
            if self.venue.fatal is not None:
                raise ConfigError(self.venue.fatal)
            if stop.is_set():
                break
            pause = max(self._backoff.next(), (self.venue.not_before - self._clock()) / 1e9)
            _log.warning("%s: %s; connecting again in %.1f s", self.venue.url, reason, pause)
            await self._pause(pause, stop)

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
            self.venue.disconnected(self._clock(), reason)
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
        self.stats.opened += 1
        self._socket = socket
        self._over = asyncio.get_running_loop().create_future()
        closed = asyncio.ensure_future(socket.wait_closed())
        try:
            _log.info("%s: connected", self.venue.url)
            self.venue.connected(self._clock())
            socket.start(self.venue.receive, self._after_read)
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
            await _close(socket, closed)

    def _after_read(self) -> None:
        """Send what the last read or timer made the venue say, and set the timer."""
        socket, venue = self._socket, self.venue
        if socket is None or self._over is None:
            return
        messages = venue.data_to_send()
        if messages:
            socket.post(messages)
            late = self._clock() - socket.now
            answered = venue.counters["heartbeats_answered"]
            if answered != self._answered:
                self._answered = answered
                self.stats.heartbeat_late_max_ns = max(self.stats.heartbeat_late_max_ns, late)
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
        self.venue.timer(self._clock())
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
