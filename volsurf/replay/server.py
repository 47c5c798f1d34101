"""A recording served in its venue's own protocol, so that any client can be tested on yesterday.

    async with ReplayServer("captures/today", venue="deribit", speed=1.0) as server:
        feed = vs.Feed("deribit", ["BTC"], url=server.url)

Discovery is answered from what the venue answered when it was recorded, subscriptions are honoured, and the recorded messages of
the channels asked for follow each other as they did. The recording begins with the first subscription; a client that comes later
is first told where its channels stand, as far as a bounded memory allows.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from volsurf.capture.format import Block, RecordKind
from volsurf.capture.reader import Capture, open_capture
from volsurf.capture.records import NUMBER, unpack_http_answer, unpack_http_request
from volsurf.errors import InputError
from volsurf.replay._dialect import Dialect, Keep
from volsurf.replay._times import Instant, instant_ns
from volsurf.sim.exchange import Clock, Exchange, HttpAnswer, Session, real_clock
from volsurf.sim.market import Market
from volsurf.sim.server import ExchangeServer

DIALECTS = {
    "deribit": "DeribitDialect",
    "okx": "OkxDialect",
    "bybit": "BybitDialect",
    "binance": "BinanceDialect",
}
_TICK_NS = 10_000_000
_MOST_CHANGES = 4096
"""Of one channel since its last whole message: what a client that comes late may be told."""
_STAMP = re.compile(rb"(?<![0-9.])1[0-9]{12}(?![0-9.])")
_NEAR_MS = 600_000
"""Numbers of 13 digits this near to the message's time are times of it; others are expiries and ids."""


class ReplaySession(Session):
    """One client."""

    def __init__(self, exchange: ReplayExchange, now: int, path: str) -> None:
        super().__init__()
        self.path = path
        self.scratch: dict[str, int] = {}
        self._exchange, self._now = exchange, now
        self._outbox: list[bytes] = []
        self._joined: list[str] = []

    def receive(self, data: str | bytes, now: int) -> None:
        """Take one message of the client."""
        self._now = now
        self._exchange.dialect.hear(self, data.encode() if isinstance(data, str) else data, now)
        # What a channel says comes after the acknowledgement.
        joined, self._joined = self._joined, []
        for channel in joined:
            self._exchange.join(self, channel, now)

    def timer(self, now: int) -> None:
        """Heartbeats."""
        self._exchange.dialect.timer(self, now)

    def data_to_send(self) -> list[bytes]:
        """Everything queued since the last call."""
        payloads, self._outbox = self._outbox, []
        return payloads

    @property
    def closing(self) -> tuple[int, str] | None:
        """Never: a recording has no reason to hang up."""
        return None

    def closed(self) -> None:
        """Leave every channel."""
        self._exchange.forget(self)

    def say(self, payload: bytes) -> None:
        """Send a message."""
        self._outbox.append(payload)

    def join(self, channel: str) -> None:
        """Send it what comes on a channel from here on."""
        self._joined.append(channel)

    def leave(self, channel: str) -> None:
        """And no more."""
        self._exchange.leave(self, channel)


class ReplayExchange(Exchange):
    """One venue's recording, without sockets.

    Args:
        capture: where it lies. stream: which feed's.
        speed: seconds of the recording per second. restamp: move the times in messages to the time they are sent.
        loop: begin again at the end. start_ns: of the recording; what lies before is told as where the channels stand.
    """

    tick_ns = _TICK_NS

    def __init__(
        self,
        capture: Capture,
        stream: str,
        *,
        speed: float = 1.0,
        restamp: bool = False,
        loop: bool = False,
        start_ns: int | None = None,
    ) -> None:
        recorded = capture.streams[stream]
        # A market that nobody looks at: what is quoted here is what was recorded.
        super().__init__(Market(1, ("BTC",), start_ns=recorded.start_ns), origin_ns=recorded.start_ns)
        self.dialect = _dialect(capture.streams[stream].venue)
        self.path = self.dialect.path
        self._capture, self._stream = capture, stream
        self._speed, self._restamp, self._loop = speed, restamp, loop
        self._start_ns = recorded.start_ns if start_ns is None else start_ns
        self._clients: dict[ReplaySession, None] = {}
        self._listeners: dict[str, dict[ReplaySession, None]] = {}
        self._kept: dict[str, list[bytes]] = {}
        self._too_many: set[str] = set()
        self._began: int | None = None
        self._played_ns = self._start_ns
        self.is_over = False
        self._tape = self._read()
        self._next: tuple[int, str, Keep, bytes] | None = None
        self._learn()
        self._rewind()

    def accepts(self, path: str) -> bool:
        """The venue's own endpoints."""
        return self.dialect.accepts(path)

    def open_session(self, now: int, path: str = "") -> ReplaySession:
        """A client connected."""
        session = ReplaySession(self, now, path)
        self._clients[session] = None
        self.dialect.opened(session, now)
        joined, session._joined = session._joined, []
        for channel in joined:
            self.join(session, channel, now)
        return session

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        """Nothing: the truth behind a recording is not known."""
        del underlying
        return {}

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        """A page as it was recorded."""
        del now
        body = self.dialect.page(path, query)
        self.counters["pages" if body is not None else "pages_unknown"] += 1
        return None if body is None else (200, body)

    def join(self, session: ReplaySession, channel: str, now: int) -> None:
        """Send a client what comes on a channel, and first where it stands."""
        if self._began is None:
            self._began = now
        self._listeners.setdefault(channel, {})[session] = None
        if channel in self._too_many:
            self.counters["joined_without_snapshot"] += 1
        for payload in self._kept.get(channel, ()):
            session.say(self._stamped(payload, self._played_ns, now))

    def leave(self, session: ReplaySession, channel: str) -> None:
        """And no more."""
        self._listeners.get(channel, {}).pop(session, None)

    def forget(self, session: ReplaySession) -> None:
        """A client is gone."""
        self._clients.pop(session, None)
        for listeners in self._listeners.values():
            listeners.pop(session, None)

    def advance(self, now: int) -> None:
        """Send what is due."""
        if self._began is None:
            return
        due_ns = self._start_ns + int((now - self._began) * self._speed)
        while (message := self._next) is not None and message[0] <= due_ns:
            self._send(message, now)
            self._next = next(self._tape, None)
        if self._next is None:
            if self._loop and self._played_ns > self._start_ns:
                self.counters["loops"] += 1
                self._began, self._tape = now, self._read()
                self._rewind()
            else:
                self.is_over = True

    def _send(self, message: tuple[int, str, Keep, bytes], now: int) -> None:
        time_ns, channel, keep, payload = message
        self._played_ns = max(self._played_ns, time_ns)
        self._keep(channel, keep, payload)
        listeners = self._listeners.get(channel)
        if listeners:
            stamped = self._stamped(payload, time_ns, now)
            for session in listeners:
                session.say(stamped)
            self.counters["replayed"] += len(listeners)

    def _keep(self, channel: str, keep: Keep, payload: bytes) -> None:
        if keep is Keep.LAST or keep is Keep.FIRST:
            self._kept[channel] = [payload]
            self._too_many.discard(channel)
        elif keep is Keep.MORE and channel not in self._too_many:
            kept = self._kept.setdefault(channel, [])
            kept.append(payload)
            if len(kept) > _MOST_CHANGES:
                del self._kept[channel]
                self._too_many.add(channel)

    def _stamped(self, payload: bytes, time_ns: int, now: int) -> bytes:
        if not self._restamp:
            return payload
        recorded_ms, shift_ms = time_ns // 1_000_000, (now - time_ns) // 1_000_000

        def moved(match: re.Match[bytes]) -> bytes:
            value = int(match[0])
            return str(value + shift_ms).encode() if abs(value - recorded_ms) < _NEAR_MS else match[0]

        return _STAMP.sub(moved, payload)

    # --- the recording ---------------------------------------------------------------------------------------------------
    def _rewind(self) -> None:
        """To where it is to begin; what comes before is kept as where the channels stand."""
        self._played_ns = self._start_ns
        self._kept.clear()
        self._too_many.clear()
        self._next = next(self._tape, None)
        while self._next is not None and self._next[0] < self._start_ns:
            self._keep(*self._next[1:])
            self._next = next(self._tape, None)

    def _read(self) -> Iterator[tuple[int, str, Keep, bytes]]:
        """Pushes in order: time, channel, what to keep, message."""
        passed_over: set[int] = set()
        for block in self._capture.blocks(self._stream):
            for kind, connection, time_ns, payload in _rows(block):
                if kind == RecordKind.RECEIVED and connection not in passed_over:
                    found = self.dialect.channel_of(payload)
                    if found is not None:
                        yield time_ns, *found, payload
                elif kind == RecordKind.TWINNED:
                    # Both sockets carry the same until the second one takes over.
                    passed_over.add(NUMBER.unpack(payload)[0])
                elif kind == RecordKind.TAKEN_OVER:
                    passed_over.discard(NUMBER.unpack(payload)[0])
                    passed_over.add(connection)

    def _learn(self) -> None:
        """Everything that was asked and answered, whenever it was: a listing of noon holds what a client asks for at nine."""
        urls: dict[tuple[int, str], str] = {}
        for block in self._capture.blocks(self._stream):
            for kind, connection, _, payload in _rows(block):
                if kind == RecordKind.SENT:
                    self.dialect.learn_sent(connection, payload)
                elif kind == RecordKind.HTTP_REQUEST:
                    request = unpack_http_request(payload)
                    urls[connection, request.key] = request.url
                elif kind == RecordKind.HTTP_ANSWER:
                    key, status, body = unpack_http_answer(payload)
                    url = urls.pop((connection, key), None)
                    if url is not None and status == 200:
                        self.dialect.learn_page(url, body)
                elif kind == RecordKind.RECEIVED and self.dialect.channel_of(payload) is None:
                    self.dialect.learn_heard(connection, payload)


class ReplayServer(ExchangeServer):
    """Serves one venue of a capture on a loopback port.

    Args:
        capture: its directory, or opened. venue: which, where there are several.
        speed, restamp, loop: see `ReplayExchange`. start: where to begin, as `vs.replay` reads it.
        options: further arguments of `ExchangeServer`: `port`, `faults`, …

    Raises:
        InputError: no such venue in the capture, or more than one and none named.
    """

    exchange: ReplayExchange

    def __init__(
        self,
        capture: str | os.PathLike[str] | Capture,
        *,
        venue: str | None = None,
        speed: float = 1.0,
        restamp: bool = False,
        loop: bool = False,
        start: Instant | None = None,
        clock: Clock = real_clock,
        **options: Any,
    ) -> None:
        opened = capture if isinstance(capture, Capture) else open_capture(capture)
        if not 0 < speed < float("inf"):
            raise InputError(f"speed of a server must be positive, was {speed!r}")
        start_ns = None if start is None else instant_ns("start", start, opened.start_ns)
        stream = _stream_of(opened, venue)
        exchange = ReplayExchange(opened, stream, speed=speed, restamp=restamp, loop=loop, start_ns=start_ns)
        super().__init__(exchange, clock=clock, **options)


def served_venues(capture: Capture) -> list[str]:
    """The venues of a capture that can be served."""
    return [stream.venue for stream in capture.feeds.values() if stream.venue in DIALECTS]


def _stream_of(capture: Capture, venue: str | None) -> str:
    streams = {name: stream.venue for name, stream in capture.feeds.items() if venue in (None, stream.venue)}
    if len(streams) != 1 or next(iter(streams.values())) not in DIALECTS:
        there = ", ".join(sorted({stream.venue for stream in capture.feeds.values()})) or "none"
        raise InputError(f"name one venue to serve of those in the capture ({there}), was {venue!r}")
    return next(iter(streams))


def _dialect(venue: str) -> Dialect:
    module = importlib.import_module(f"volsurf.replay._dialect_{venue}")
    made: Dialect = getattr(module, DIALECTS[venue])()
    return made


def _rows(block: Block) -> Iterator[tuple[int, int, int, bytes]]:
    return zip(block.kind.tolist(), block.connection.tolist(), block.time_ns.tolist(), block.payloads, strict=True)
