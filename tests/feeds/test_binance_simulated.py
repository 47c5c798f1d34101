"""The protocol against the simulated venue: over real sockets, and in memory where time must run by hand."""

from __future__ import annotations

import asyncio
import zlib
from urllib.parse import parse_qsl

import numpy as np
import pytest

from tests.feeds.loopback import eventually
from volsurf.feeds.binance import Binance, make
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, InstrumentEvent, TradeEvent
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import FloatArray, Kind
from volsurf.iv.black import black_price
from volsurf.quotes import QuoteBoard
from volsurf.sim.binance import BinanceExchange, BinanceSession, SimulatedBinance
from volsurf.sim.market import Market

SECOND = 1_000_000_000
START = 1_795_521_600 * SECOND
"""2026-11-24 12:00:00 UTC"""


class Bridge:
    """A feed and a simulated venue joined without sockets, under one clock moved by hand."""

    def __init__(
        self, underlyings: tuple[str, ...] = ("BTC",), *, start: int = START, seed: int = 1, **options: object
    ) -> None:
        session = {name: options.pop(name) for name in ("lifetime_seconds",) if name in options}
        self.market = Market(seed, underlyings, start_ns=start)
        self.exchange = BinanceExchange(self.market, origin_ns=start, **session)  # type: ignore[arg-type]
        self.feed = VenueFeed(
            make(list(underlyings), url="ws://sim", **options),  # type: ignore[arg-type]
            clock=lambda: self.now,
            books=bool(options.get("books")),
        )
        self.now = start
        self.sessions: dict[Binance, BinanceSession] = {}
        self.events: list[Event] = []
        self.checksums: list[int] = []
        self.deaf: set[Binance] = set()

    @property
    def venues(self) -> list[Binance]:
        """Those that stand in a place, and those that are to take over."""
        found = [place.member.venue for place in self.feed._places]
        found += [place.twin.venue for place in self.feed._places if place.twin is not None]
        return [venue for venue in found if isinstance(venue, Binance)]

    def run(self, seconds: float, step: float = 0.1) -> None:
        """Let both live."""
        for _ in range(round(seconds / step)):
            self.now += round(step * SECOND)
            self.exchange.advance(self.now)
            for venue in self.venues:
                if venue not in self.sessions:
                    if self.now < venue.not_before:
                        continue
                    self.sessions[venue] = self.exchange.open_session(self.now, venue.url.removeprefix("ws://sim"))
                    venue.connected(self.now)
                self.sessions[venue].timer(self.now)
                self.shuttle(venue)
                venue.timer(self.now)
                self.shuttle(venue)
                session = self.sessions.get(venue)
                if session is not None and (session.closing or venue.failure):
                    self.cut(venue, str(session.closing or venue.failure))
            for venue in [venue for venue in self.sessions if venue not in self.venues]:
                self.cut(venue, "replaced")
            batch, events = self.feed.collect(self.now)
            self.events += events
            self.checksums.append(0 if batch is None else zlib.crc32(batch.to_bytes()))

    def shuttle(self, venue: Binance) -> None:
        """Carry messages and pages both ways until nobody says more."""
        session, busy = self.sessions[venue], True
        while busy:
            busy = False
            for message in venue.data_to_send():
                session.receive(message, self.now)
                busy = True
            for request in venue.http_requests():
                path, _, query = request.url.removeprefix("http://sim").partition("?")
                answer = self.exchange.http(path, dict(parse_qsl(query)), self.now)
                assert answer is not None
                venue.receive_http(request.key, answer[0], answer[1], self.now)
                busy = True
            for payload in session.data_to_send():
                if venue not in self.deaf:
                    venue.receive(payload, self.now)
                busy = True

    def cut(self, venue: Binance, reason: str) -> None:
        """The socket ends."""
        self.sessions.pop(venue).closed()
        venue.disconnected(self.now, reason)

    def health(self, kind: Health) -> list[str]:
        """Details of one kind so far."""
        return [event.detail for event in self.events if isinstance(event, HealthEvent) and event.kind is kind]


def two_sided(board: QuoteBoard) -> FloatArray:
    """Ids of options that show both sides."""
    universe = board.universe
    option = (universe.kind == Kind.OPTION) & universe.active
    return np.flatnonzero(option & np.isfinite(board.bid) & np.isfinite(board.ask))


def share_inside(board: QuoteBoard, exchange: BinanceExchange) -> float:
    """Share of the two-sided options whose true present value lies between bid and ask, what is stale there left out."""
    universe, market, quotes = board.universe, exchange.market, exchange.quotes
    inside = []
    for row in two_sided(board).tolist():
        option = universe[int(row)]
        theirs = exchange.listing.row_of[option.symbol]
        if quotes.stale_until[theirs] > market.now_ns:
            continue
        forward = float(market.truth_forward(option.underlying, option.expiry_ns, "USDT"))
        vol = float(market.truth_vol(option.underlying, option.expiry_ns, option.strike, "USDT"))
        discount = market.spot(option.underlying, "USDT") / forward
        years = float(market.years(option.expiry_ns))
        fair = float(black_price(forward, option.strike, years, vol, option.is_call, discount=discount))
        inside.append(board.bid[row] <= fair <= board.ask[row])
    return float(np.mean(inside))


def test_the_board_is_the_venues_books_in_coins() -> None:
    bridge = Bridge(("BTC", "XRP"), trades=True)
    bridge.run(6)
    board, quotes, names = bridge.feed.board, bridge.exchange.quotes, bridge.exchange.listing.row_of
    assert bridge.feed.is_ready
    assert bridge.feed.trouble == ""
    rows = two_sided(board)
    assert len(rows) > 300
    exact = 0
    for row in rows.tolist():
        theirs = names[board.universe[int(row)].symbol]
        exact += board.bid[row] == pytest.approx(quotes.bid[theirs], rel=1e-12) and board.bid_size[
            row
        ] == pytest.approx(quotes.bid_size[theirs], rel=1e-12)
        assert board.forward[row] == pytest.approx(quotes.forward[theirs], rel=1e-4)
        assert board.mark_vol[row] == pytest.approx(quotes.vol[theirs], abs=2e-3)
    # Those far from the money are told once a second only.
    assert exact > 0.75 * len(rows)
    assert share_inside(board, bridge.exchange) > 0.97
    assert [event for event in bridge.events if isinstance(event, TradeEvent)]


def test_books_follow_the_venue_without_a_gap() -> None:
    bridge = Bridge(books=True, quotes="near")
    bridge.run(15)
    books, exchange = bridge.feed.books, bridge.exchange
    assert books is not None
    assert len(books) == 100
    assert bridge.feed.counters.get("book_gaps", 0) == books.counters["gap"] == 0
    assert sum(isinstance(event, BookEvent) for event in bridge.events) > 300
    for symbol in list(bridge.venues[1]._link.catalogue.rows):
        row = bridge.feed.universe.find("binance", symbol)
        assert row is not None
        theirs = exchange.book(exchange.listing.row_of[symbol])
        bids, asks = books[row].levels(50)
        assert bids.tolist() == [list(level) for level in theirs.bids.items()]
        assert asks.tolist() == [list(level) for level in theirs.asks.items()]


def test_the_same_calls_give_the_same_bytes() -> None:
    one, two = (Bridge(("BTC",), books=True, trades=True) for _ in range(2))
    for bridge in (one, two):
        bridge.run(2)
        bridge.cut(bridge.venues[1], "lost")
        bridge.run(2)
    for venue in two.venues:
        repr(venue), venue.trouble, dict(venue.counters)
    assert one.checksums == two.checksums
    assert len(set(one.checksums)) > 20


def test_a_lost_connection_is_back_within_a_second_or_two() -> None:
    bridge = Bridge()
    bridge.run(4)
    quoted = len(two_sided(bridge.feed.board))
    for member in (1, 0):
        bridge.cut(bridge.venues[member], "lost")
        bridge.run(2.5)
        assert bridge.feed.is_ready
        assert len(two_sided(bridge.feed.board)) > 0.97 * quoted
        assert share_inside(bridge.feed.board, bridge.exchange) > 0.97


def test_books_survive_the_loss_of_the_other_route() -> None:
    bridge = Bridge(books=True)
    bridge.run(3)
    books = bridge.feed.books
    assert books is not None
    whole = {row for row in range(len(bridge.feed.universe)) if (b := books.get(row)) is not None and len(b)}
    assert len(whole) > 40
    bridge.cut(bridge.venues[0], "lost")
    bridge.run(0.3)
    assert all(len(books[row]) for row in whole)
    bridge.cut(bridge.venues[1], "lost")
    bridge.feed.collect(bridge.now)
    assert not any(len(books[row]) for row in whole)
    bridge.run(3)
    assert sum(len(books[row]) > 0 for row in whole) > 40


def test_a_silent_connection_is_noticed_and_opened_again() -> None:
    bridge = Bridge()
    bridge.run(4)
    market = bridge.venues[0]
    bridge.deaf.add(market)
    bridge.run(8, step=0.5)
    assert "silent" in bridge.feed.trouble
    bridge.run(20, step=0.5)
    bridge.deaf.clear()
    bridge.run(10, step=0.5)
    assert any("was not answered" in said for said in bridge.health(Health.DISCONNECTED))
    assert bridge.feed.trouble == ""


def test_an_expiry_and_what_is_listed_after_it() -> None:
    eight = 1_795_766_400 * SECOND  # 2026-11-27 08:00:00 UTC
    bridge = Bridge(start=eight - 3 * SECOND)
    bridge.run(50, step=0.5)
    universe = bridge.feed.universe
    expired = np.flatnonzero((universe.kind == Kind.OPTION) & (universe.expiry_ns == eight))
    assert len(expired) > 20
    assert not universe.active[expired].any()
    assert np.isnan(bridge.feed.board.bid[expired]).all()
    assert np.isnan(bridge.feed.board.ask[expired]).all()
    listed = {
        row
        for row, active in zip(bridge.exchange.listing.names, bridge.exchange.listing.universe.active, strict=True)
        if active
    }
    assert {universe[int(i)].symbol for i in np.flatnonzero(universe.active & (universe.kind == Kind.OPTION))} == listed
    assert any(isinstance(event, InstrumentEvent) and event.retired for event in bridge.events)


def test_an_expiry_that_vanishes_without_a_word() -> None:
    bridge = Bridge()
    bridge.run(4)
    expiry = sorted(bridge.exchange.chain("BTC"))[1]
    bridge.exchange.vanish("BTC", expiry)
    bridge.run(20, step=0.5)
    universe = bridge.feed.universe
    gone = np.flatnonzero((universe.kind == Kind.OPTION) & (universe.expiry_ns == expiry))
    assert len(gone)
    assert np.isnan(bridge.feed.board.bid[gone]).all()
    assert not universe.active[gone].any()
    assert bridge.health(Health.STALE)
    assert bridge.feed.is_ready


def test_a_takeover_clears_no_quote() -> None:
    bridge = Bridge(books=True)
    bridge.run(4)
    quoted = set(two_sided(bridge.feed.board).tolist())
    for venue in bridge.venues:
        opened, elapsed = venue._opened
        venue._opened = (opened - 23 * 3600 * SECOND, elapsed)
    worst = len(quoted)
    for _ in range(70):
        bridge.run(0.25, step=0.25)
        worst = min(worst, len(two_sided(bridge.feed.board)))
    assert bridge.feed.takeovers == 2
    assert bridge.feed.is_ready
    assert worst > 0.98 * len(quoted)
    assert share_inside(bridge.feed.board, bridge.exchange) > 0.97


def test_refused_subscriptions_and_too_many_messages() -> None:
    bridge = Bridge()
    bridge.run(1)
    for venue in bridge.venues:
        bridge.sessions[venue].refuse_next("rate_limit")
        venue._replies.probe()
    bridge.run(3)
    assert not bridge.feed.is_ready
    assert len(bridge.health(Health.RATE_LIMITED)) == 2
    bridge.run(70, step=0.5)
    assert bridge.feed.is_ready


async def test_over_real_sockets() -> None:
    import time

    market = Market(2, ("BTC", "XRP"), start_ns=time.time_ns())
    async with SimulatedBinance(market) as server:
        feed = VenueFeed(make(["BTC", "XRP"], url=server.url, books=True, trades=True, shards=2), books=True, seed=1)
        assert isinstance(server.exchange, BinanceExchange)
        stop = asyncio.Event()
        events: list[Event] = []
        running = asyncio.ensure_future(feed.run(stop, lambda batch, happened: events.extend(happened)))
        await eventually(lambda: running.done() or (feed.is_ready and len(two_sided(feed.board)) > 300))
        await eventually(lambda: running.done() or (feed.books is not None and len(feed.books) >= 40))
        assert not running.done()
        assert len(feed.connections) == 3
        assert share_inside(feed.board, server.exchange) > 0.9
        assert feed.counters.get("book_gaps", 0) == 0
        assert not [name for name in feed.counters if name.startswith(("malformed", "retired"))]
        stop.set()
        await running
    assert {event.kind for event in events if isinstance(event, HealthEvent)} >= {Health.CONNECTED, Health.READY}
    assert not np.isfinite(feed.board.bid).any()


async def test_a_flood_over_real_sockets() -> None:
    import time

    market = Market(2, ("BTC",), start_ns=time.time_ns())
    async with SimulatedBinance(market, rate=20_000) as server:
        feed = VenueFeed(make(["BTC"], url=server.url), seed=1)
        stop = asyncio.Event()
        running = asyncio.ensure_future(feed.run(stop, lambda batch, happened: None))
        await eventually(lambda: running.done() or (feed.is_ready and feed.counters.get("bookTicker", 0) > 10_000))
        assert not running.done()
        assert feed.trouble == ""
        stop.set()
        await running
