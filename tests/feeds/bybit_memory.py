"""Connections of Bybit on a simulated exchange in memory: no socket, one clock moved by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import Event
from volsurf.quotes import QuoteBatch, QuoteBoard
from volsurf.sim.bybit import BybitExchange, BybitSession
from volsurf.sim.listing import to_ns
from volsurf.sim.market import Market

SECOND = 1_000_000_000
TICK = SECOND // 10
START = to_ns(datetime(2026, 11, 24, 12, tzinfo=UTC))
JUST_BEFORE_EIGHT = to_ns(datetime(2026, 11, 27, 7, 59, 55, tzinfo=UTC))
"""A last Friday of a month."""


class Wire:
    """One venue connected to one session.

    Attributes:
        board: last values of this connection. events: all so far. batches: all so far, encoded, when `keep` is set.
    """

    def __init__(self, exchange: BybitExchange, venue: Bybit, now: int, *, keep: bool = False) -> None:
        self.exchange, self.venue = exchange, venue
        self.board = QuoteBoard(venue.universe)
        self.events: list[Event] = []
        self.batches: list[bytes] = []
        self.calls: list[tuple[str, int, tuple[object, ...]]] = []
        self._keep = keep
        self.session: BybitSession = exchange.open_session(now)
        self._call("connected", now)
        self.exchange_words(now)

    def exchange_words(self, now: int) -> None:
        """Carry everything there is to be said, both ways, until both are silent."""
        while True:
            sent = self.venue.data_to_send()
            for request in self.venue.http_requests():
                parts = urlsplit(request.url)
                answer = self.exchange.http(parts.path, dict(parse_qsl(parts.query)), now)
                assert answer is not None
                self._call("receive_http", now, request.key, answer[0], answer[1])
            for command in sent:
                self.session.receive(command, now)
            said = self.session.data_to_send()
            for message in said:
                self._call("receive", now, message)
            if not sent and not said and not self.venue._listings._outbox:
                return

    def take(self, now: int) -> QuoteBatch | None:
        """One tick of the feed."""
        self.events += self.venue.events()
        self._call("take_quotes", now)
        return self._taken

    def timer(self, now: int) -> None:
        """The venue's timer, and what it makes it say."""
        self._call("timer", now)
        self.exchange_words(now)

    def _call(self, name: str, now: int, *arguments: object) -> None:
        if self._keep:
            self.calls.append((name, now, arguments))
        result = getattr(self.venue, name)(*arguments, now)
        if name == "take_quotes":
            self._taken: QuoteBatch | None = result
            if result is not None:
                self.board.apply(result)
                if self._keep:
                    self.batches.append(result.to_bytes())


class World:
    """An exchange and its clients under one clock."""

    def __init__(
        self, coins: Sequence[str] = ("BTC",), *, start: int = START, seed: int = 1, scale: float = 1.0
    ) -> None:
        self.now = start
        market = Market(seed, coins, start_ns=start)
        self.exchange = BybitExchange(market, origin_ns=start, time_scale=scale)
        self.wires: list[Wire] = []

    def connect(self, venues: Sequence[Bybit], *, keep: bool = False) -> list[Wire]:
        """Open a connection for each venue, and let time pass until all are ready."""
        self.wires += [Wire(self.exchange, venue, self.now, keep=keep) for venue in venues]
        for _ in range(20):
            self.run(1)
            if all(wire.venue.is_ready for wire in self.wires):
                return self.wires
        raise AssertionError([wire.venue.trouble for wire in self.wires])

    def run(self, ticks: int) -> None:
        """Let the exchange run."""
        for _ in range(ticks):
            self.now += TICK
            self.exchange.advance(self.now)
            for wire in self.wires:
                wire.session.timer(self.now)
                wire.exchange_words(self.now)
                wire.timer(self.now)
                wire.take(self.now)
