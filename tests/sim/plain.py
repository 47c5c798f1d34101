"""A venue without a protocol, for tests of what all venues share: it says back what it hears, and a number a tick."""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from volsurf.instruments import Kind
from volsurf.sim.exchange import Exchange, HttpAnswer, Session
from volsurf.sim.listing import Listing
from volsurf.sim.market import Market
from volsurf.sim.profiles import PROFILES, Family, VenueProfile
from volsurf.sim.quoting import QuoteModel


class PlainListing(Listing):
    """Any venue's."""

    def symbol(self, family: Family, kind: Kind, expiry_ns: int, strike: float, is_call: bool) -> str:
        terms = f"{family.underlying}/{family.quote_currency}/{family.settlement.name}"
        return f"{terms}/{kind.name}/{expiry_ns}/{strike:g}/{'C' if is_call else 'P'}"


class PlainSession(Session):
    """Echoes; "leave" is answered with a close, "subscribe" may be refused."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.heard: list[str | bytes] = []
        self.outbox: list[bytes] = []
        self.is_closed = False
        self._closing: tuple[int, str] | None = None

    def receive(self, data: str | bytes, now: int) -> None:
        self.heard.append(data)
        if data == "leave":
            self._closing = (1000, "as you wish")
        elif self.is_refused("rate_limit"):
            self.outbox.append(b"slower")
        elif data == "subscribe" and self.is_refused("subscribe"):
            self.outbox.append(b"no")
        else:
            self.outbox.append(data.encode() if isinstance(data, str) else data)

    def timer(self, now: int) -> None:
        return

    def data_to_send(self) -> list[bytes]:
        payloads, self.outbox = self.outbox, []
        return payloads

    @property
    def closing(self) -> tuple[int, str] | None:
        return self._closing

    def closed(self) -> None:
        self.is_closed = True

    def control_pings(self, now: int) -> list[bytes]:
        pings, self.pings = self.pings, []
        return pings

    def receive_pong(self, payload: bytes, now: int) -> None:
        self.pongs.append(payload)


class PlainExchange(Exchange):
    """Two endpoints and a page; its channel is `book.plain`."""

    path = "/one"
    tick_ns = 20_000_000

    def __init__(self, market: Market, *, origin_ns: int = 0, profile: VenueProfile | None = None) -> None:
        super().__init__(market, origin_ns=origin_ns)
        self.profile = profile
        terms = profile or PROFILES["okx"]
        self.listing = PlainListing(market, terms.name, terms.families, terms.expiries)
        self.listing.update(market.now_ns)
        self.quotes = QuoteModel(market, self.listing.universe, profile=terms)
        self.quotes.update()
        self.sessions: list[PlainSession] = []
        self.ticks = 0
        self.moves = 0

    def accepts(self, path: str) -> bool:
        return path in ("/one", "/two")

    def open_session(self, now: int, path: str = "") -> PlainSession:
        self.sessions.append(PlainSession(path))
        return self.sessions[-1]

    def advance(self, now: int) -> None:
        if self.move_market(now):
            self.moves += 1
            self.listing.update(self.market.now_ns)
            self.quotes.update()
        self.ticks += 1
        for session in self.sessions:
            session.outbox.append(b'{"channel":"book.plain","n":%d}' % self.ticks)

    def chain(self, underlying: str) -> Mapping[int, npt.ArrayLike]:
        return self.listing.chain(underlying)

    def http(self, path: str, query: dict[str, str], now: int) -> HttpAnswer | None:
        if path == "/page":
            return 429, b'{"said":"%s"}' % query.get("say", "").encode(), {"Retry-After": "7"}
        return super().http(path, query, now)
