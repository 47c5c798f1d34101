"""A simulated OKX under hand: no socket, no clock, one client; and a whole `Okx` connected to it in memory."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.sim.venue import SECOND, START, TICK, Message
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import Event
from volsurf.quotes import QuoteBoard
from volsurf.sim.exchange import HttpAnswer
from volsurf.sim.market import Market
from volsurf.sim.okx import OkxExchange, OkxSession
from volsurf.sim.quoting import QuoteRules


def exchange(
    underlyings: tuple[str, ...] = ("BTC",), *, seed: int = 1, start: int = START, **options: Any
) -> OkxExchange:
    """A new exchange whose real clock stands at 0."""
    return OkxExchange(Market(seed, underlyings, start_ns=start), origin_ns=0, **options)


class Client:
    """One session of an exchange, and a real clock that only the test moves."""

    def __init__(self, exchange: OkxExchange, now: int = 0) -> None:
        self.exchange = exchange
        self.now = now
        self.session: OkxSession = exchange.open_session(now)
        self._id = 0

    def say(self, text: str | bytes) -> list[Message]:
        """Send one message as it stands; what comes back at once."""
        self.session.receive(text, self.now)
        return self.read()

    def ask(self, op: str, *args: dict[str, str]) -> list[Message]:
        """What is answered to a request, pushes included."""
        self._id += 1
        return self.say(json.dumps({"id": str(self._id), "op": op, "args": list(args)}))

    def subscribe(self, channel: str, **arg: str) -> list[Message]:
        """Subscribe to one channel, and what it says at once."""
        ack, *pushed = self.ask("subscribe", {"channel": channel, **arg})
        assert ack["event"] == "subscribe", ack
        return pushed

    def page(self, path: str, **query: str) -> Any:
        """A page of the venue."""
        answer = self.exchange.http(path, query, self.now)
        assert answer is not None
        return json.loads(answer[1])

    def read(self) -> list[Message]:
        """What was queued for this client; `pong` becomes `{"pong": true}`."""
        said = self.session.data_to_send()
        return [{"pong": True} if payload == b"pong" else json.loads(payload) for payload in said]

    def run(self, ticks: int, tick: int = TICK) -> list[Message]:
        """Let the exchange run, and everything it said meanwhile."""
        said = []
        for _ in range(ticks):
            self.now += tick
            self.exchange.advance(self.now)
            self.session.timer(self.now)
            said += self.read()
        return said


def of_channel(messages: list[Message], channel: str) -> list[Message]:
    """The pushes of a channel."""
    return [m for m in messages if m.get("arg", {}).get("channel") == channel and "data" in m]


class Pair:
    """An `Okx` and the session it speaks with, in memory, under one clock.

    Attributes:
        board: last values. seen: events so far. batches: as bytes. lost: whether the link drops everything.
    """

    def __init__(self, venue: Okx, exchange: OkxExchange) -> None:
        self.venue, self.exchange = venue, exchange
        self.now = START
        self.board = QuoteBoard(venue.universe)
        self.seen: list[Event] = []
        self.batches: list[bytes] = []
        self.session: OkxSession | None = None
        self.is_silent = False

    def connect(self) -> Pair:
        """Open the socket and settle everything that needs no time."""
        self.session = self.exchange.open_session(self.now)
        self.venue.connected(self.now)
        self.pump()
        return self

    def cut(self, reason: str = "cut") -> None:
        """Close the socket."""
        assert self.session is not None
        self.session.closed()
        self.session = None
        self.venue.disconnected(self.now, reason)
        self.collect()

    def pump(self) -> None:
        """Carry messages and pages until nobody has any."""
        busy = True
        while busy and self.session is not None:
            busy = False
            for message in self.venue.data_to_send():
                busy = True
                if not self.is_silent:
                    self.session.receive(message, self.now)
            for request in self.venue.http_requests():
                busy = True
                answer = self._page(request.url)
                assert answer is not None, request.url
                self.venue.receive_http(request.key, answer[0], answer[1], self.now)
            for payload in self.session.data_to_send():
                busy = True
                if not self.is_silent:
                    self.venue.receive(payload, self.now)

    def run(self, seconds: float, tick: int = TICK) -> None:
        """Let both live, a tick at a time; the socket ends where either of them wants it to."""
        for _ in range(round(seconds * SECOND / tick)):
            self.now += tick
            self.exchange.advance(self.now)
            if self.session is not None:
                self.session.timer(self.now)
                self.pump()
                self.venue.timer(self.now)
                self.pump()
                closing = self.session.closing
                if closing is not None:
                    self.cut(f"closed by the venue with code {closing[0]} {closing[1]}")
                elif self.venue.failure is not None:
                    self.cut(self.venue.failure)
            self.collect()

    def collect(self) -> None:
        """One tick of the feed."""
        self.seen += self.venue.events()
        batch = self.venue.take_quotes(self.now)
        if batch is not None:
            self.board.apply(batch)
            self.batches.append(batch.to_bytes())

    def _page(self, url: str) -> HttpAnswer | None:
        target = urlsplit(url)
        if self.exchange.in_maintenance(self.now):
            return self.exchange.maintenance_answer
        return self.exchange.http(target.path, dict(parse_qsl(target.query)), self.now)


def pair(*underlyings: str, seed: int = 1, rules: QuoteRules | None = None, **options: Any) -> Pair:
    """A connection that is ready, on a new exchange whose clock stands at `START`."""
    names = underlyings or ("BTC_USD_UM",)
    bases = tuple(dict.fromkeys(name.partition("_")[0] for name in names))
    market = Market(seed, bases, start_ns=START)
    made = Pair(
        Okx(names, url="ws://sim.test/ws/v5/public", **options), OkxExchange(market, origin_ns=START, rules=rules)
    ).connect()
    assert made.venue.is_ready
    made.collect()
    return made
