"""The Bybit protocol on the simulated Bybit: in memory under a clock moved by hand, and over a real socket."""

from __future__ import annotations

import asyncio
import math
import zlib

import numpy as np
import pytest

from tests.feeds.bybit_memory import JUST_BEFORE_EIGHT, SECOND, TICK, Wire, World
from tests.feeds.loopback import eventually
from volsurf.feeds.bybit import Bybit, make
from volsurf.feeds.protocol import BookEvent, Event, Health, HealthEvent, InstrumentEvent, TradeEvent
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import Kind, Settlement
from volsurf.quotes import QuoteBatch, QuoteBoard
from volsurf.sim.bybit import SimulatedBybit
from volsurf.sim.depth import ladder
from volsurf.sim.market import Market
from volsurf.sim.quoting import QuoteRules

URL = "ws://127.0.0.1:1/v5/public/option"


def agree(world: World, board: QuoteBoard) -> int:
    """Check the board against what the exchange quotes now; how many contracts that were."""
    quotes, listing = world.exchange.quotes, world.exchange.listing
    checked = 0
    for row, instrument in enumerate(board.universe):
        if instrument.kind is Kind.INDEX:
            family = next(f for f in listing.families if listing.price_index(f) + "-INDEX" == instrument.symbol)
            assert board.index[row] == pytest.approx(listing.spot(family), rel=2e-4)
            continue
        if not board.universe.active[row]:
            assert math.isnan(board.bid[row])
            continue
        there = listing.row_of[instrument.symbol]
        for side in ("bid", "ask"):
            price = float(getattr(quotes, side)[there])
            for name, value in ((side, price), (f"{side}_size", float(getattr(quotes, f"{side}_size")[there]))):
                expected = math.nan if math.isnan(price) else value
                np.testing.assert_equal(float(getattr(board, name)[row]), expected, err_msg=instrument.symbol)
        assert board.mark[row] == pytest.approx(quotes.mark[there], rel=2e-3, abs=10.0)
        checked += 1
    return checked


def health(wire: Wire) -> list[HealthEvent]:
    return [e for e in wire.events if isinstance(e, HealthEvent) and e.kind not in (Health.CONNECTED, Health.READY)]


def test_every_quote_of_the_venue_reaches_the_board() -> None:
    world = World(("BTC", "XRP"))
    wires = world.connect([venue for venue in make(["BTC", "XRP"], url=URL) if isinstance(venue, Bybit)])
    world.run(25)
    # Makers quote every step; what they quoted last is on the board.
    assert sum(agree(world, wire.board) for wire in wires) == len(world.exchange.listing.names)
    for wire in wires:
        assert not health(wire)
        assert not wire.venue.trouble
        assert wire.venue.counters["ticker_unknown"] == 0
    followed = [i for wire in wires for i in wire.venue.universe if i.kind is Kind.OPTION]
    assert len({i.symbol for i in followed}) == len(followed)
    assert {i.quote_currency for i in followed} == {"USDC", "USDT"}
    assert all(i.settlement is Settlement.LINEAR for i in followed)


def test_the_families_have_their_own_forwards() -> None:
    world = World(("BTC",))
    (wire,) = world.connect([Bybit(["BTC"], shard=(0, 4))])
    world.run(20)
    universe, board = wire.venue.universe, wire.board
    expiry = max(i.expiry_ns for i in universe)
    means = {}
    for currency in ("USDC", "USDT"):
        rows = [row for row, i in enumerate(universe) if i.expiry_ns == expiry and i.quote_currency == currency]
        true = float(world.exchange.market.truth_forward("BTC", expiry, currency))
        assert board.forward[rows] == pytest.approx(true, rel=5e-4)
        means[currency] = float(board.forward[rows].mean())
    assert means["USDT"] != means["USDC"]


def test_books_and_trades() -> None:
    world = World(("BTC",))
    (wire,) = world.connect([Bybit(["BTC_USDT"], books=True, shard=(0, 8))])
    world.run(60)
    books: dict[int, tuple[dict[float, float], dict[float, float]]] = {}
    changes = 0
    for event in wire.events:
        if not isinstance(event, BookEvent):
            continue
        if event.is_snapshot:
            books[event.instrument_id] = ({}, {})
        changes += not event.is_snapshot
        for side, levels in zip(books[event.instrument_id], (event.bids, event.asks), strict=True):
            for price, size in levels:
                side.pop(price, None)
                if size:
                    side[price] = size
    assert changes > 100
    listing, universe = world.exchange.listing, wire.venue.universe
    assert len(books) == len(wire.venue._link.catalogue.rows)
    for row, (bids, asks) in books.items():
        whole = ladder(world.exchange.quotes, listing.row_of[universe[row].symbol])
        assert (bids, asks) == (
            dict(list(whole.bids.items())[:25]),
            dict(list(whole.asks.items())[:25]),
        )
    trades = [event for event in wire.events if isinstance(event, TradeEvent)]
    assert trades
    assert all(event.price > 0 and event.trade_id for event in trades)
    assert not health(wire)


def test_a_restart_of_the_book_service_is_a_snapshot_like_any_other() -> None:
    world = World(("BTC",))
    (wire,) = world.connect([Bybit(["BTC_USDT"], books=True, shard=(0, 3))])
    world.run(5)
    wire.events.clear()
    world.exchange.restart_books(world.now)
    world.run(20)
    events = [event for event in wire.events if isinstance(event, BookEvent)]
    assert {event.sequence for event in events if event.is_snapshot} == {1}
    assert not health(wire)


def test_rolling_at_eight() -> None:
    """What expires leaves within seconds, what is listed is followed within minutes."""
    world = World(("XRP",), start=JUST_BEFORE_EIGHT)
    (wire,) = world.connect([Bybit(["XRP_USDT"])])
    universe = wire.venue.universe
    first = min(i.expiry_ns for i in universe if i.expiry_ns)
    dying = {i.symbol for i in universe if i.expiry_ns == first}
    wire.events.clear()
    world.run(170)
    retired = {universe[row].symbol for e in wire.events if isinstance(e, InstrumentEvent) for row in e.retired}
    assert retired == dying
    assert not np.isfinite(wire.board.bid[[row for row, i in enumerate(universe) if i.symbol in dying]]).any()
    added = {universe[row].expiry_ns for e in wire.events if isinstance(e, InstrumentEvent) for row in e.added}
    assert len(added) >= 1
    assert min(added) > first
    assert not wire.venue.trouble
    assert agree(world, wire.board) > 100


def test_an_expiry_that_vanishes() -> None:
    world = World(("XRP",))
    (wire,) = world.connect([Bybit(["XRP_USDT"], relist_seconds=10)])
    universe = wire.venue.universe
    expiry = sorted({i.expiry_ns for i in universe if i.expiry_ns})[2]
    gone = [row for row, i in enumerate(universe) if i.expiry_ns == expiry]
    world.exchange.vanish("XRP", expiry)
    world.run(160)
    assert not universe.active[gone].any()
    assert not np.isfinite(wire.board.bid[gone]).any()
    assert wire.venue.failure is None


def test_the_same_calls_give_the_same_batches() -> None:
    """A replay of the recorded calls, with and without reading everything else in between."""
    world = World(("XRP",), start=JUST_BEFORE_EIGHT)
    arguments = {"underlyings": ["XRP"], "shard": (0, 6), "books": True}
    (wire,) = world.connect([Bybit(**arguments)], keep=True)  # type: ignore[arg-type]
    world.run(120)
    assert len(wire.batches) > 100
    assert any(isinstance(e, InstrumentEvent) and e.retired for e in wire.events)
    for curious in (False, True):
        venue = Bybit(**arguments)  # type: ignore[arg-type]
        batches = []
        for name, now, extra in wire.calls:
            result = getattr(venue, name)(*extra, now)
            if curious:
                assert venue.counters is not None
                assert isinstance(venue.trouble, str)
                venue.events()
                assert venue.next_deadline
                assert isinstance(venue.is_ready, bool)
            if isinstance(result, QuoteBatch):
                batches.append(result.to_bytes())
        assert [zlib.crc32(batch) for batch in batches] == [zlib.crc32(batch) for batch in wire.batches]


def test_a_rate_limit_of_the_pages_is_waited_out() -> None:
    world = World(("BTC",))
    world.exchange.pages.refuse_next(1)
    wire = Wire(world.exchange, Bybit(["BTC_USDT"]), world.now)
    world.wires.append(wire)
    world.run(15)
    assert not wire.venue.is_ready
    world.run(15)
    assert wire.venue.is_ready
    assert [e.kind for e in health(wire)] == [Health.RATE_LIMITED]


@pytest.mark.parametrize("what", ["subscribe", "rate_limit"])
def test_a_refused_subscription_heals(what: str) -> None:
    world = World(("BTC",))
    wire = Wire(world.exchange, Bybit(["BTC_USDT"], shard=(0, 4)), world.now)
    world.wires.append(wire)
    wire.session.refuse_next(what)
    world.run(60)
    assert wire.venue.is_ready
    assert not wire.venue.refused_channels
    assert agree(world, wire.board) > 50
    assert health(wire)


async def serve(feed: VenueFeed, server: SimulatedBybit) -> tuple[list[QuoteBatch], list[Event]]:
    """Run a feed until every contract has been heard."""
    batches: list[QuoteBatch] = []
    events: list[Event] = []
    stop = asyncio.Event()

    def on_tick(batch: QuoteBatch | None, happened: list[Event]) -> None:
        if batch is not None:
            batches.append(batch)
        events.extend(happened)

    running = asyncio.create_task(feed.run(stop, on_tick))
    listed = len(server.exchange.listing.names)

    def heard() -> bool:
        return feed.is_ready and int((feed.board.receive_time_ns > 0).sum()) >= listed

    await eventually(lambda: running.done() or heard())
    assert not running.done(), running
    assert not feed.trouble
    stop.set()
    await running
    return batches, events


async def session() -> None:
    market = Market(7, ("BTC",), start_ns=1_795_521_600 * SECOND)
    async with SimulatedBybit(market, rules=QuoteRules(stale_share=0.0)) as server:
        feed = VenueFeed(make(["BTC"], url=server.url), seed=1)
        batches, events = await serve(feed, server)
        assert server.stats["connections"] == 4
        assert server.stats["pages"] == 4
        assert len(feed.universe) == len(server.exchange.listing.names) + 2
        ready = [e for e in events if isinstance(e, HealthEvent) and e.kind is Health.READY]
        assert len(ready) == 4
        assert not [e for e in events if isinstance(e, HealthEvent) and e.kind in (Health.STALE, Health.REFUSED)]
        # The truth lies between what was quoted on both sides, as long as nobody was stale.
        rows = {i.symbol: row for row, i in enumerate(feed.universe)}
        seen = 0
        for batch in batches[:-1]:
            both = np.isfinite(batch.bid) & np.isfinite(batch.ask)
            assert (batch.bid[both] < batch.ask[both]).all()
            seen += int(both.sum())
        assert seen > 500
        assert len(rows) == len(feed.universe)
        # The last batch clears what is no longer live.
        assert not np.isfinite(batches[-1].bid).any()


def test_a_session_over_a_real_socket() -> None:
    asyncio.run(session())


async def burst() -> None:
    market = Market(7, ("BTC",), start_ns=1_795_521_600 * SECOND)
    async with SimulatedBybit(market, rate=20_000) as server:
        feed = VenueFeed(make(["BTC_USDT"], url=server.url), seed=1)
        stop = asyncio.Event()
        running = asyncio.create_task(feed.run(stop, lambda batch, events: None))
        await eventually(lambda: running.done() or feed.messages > 20_000)
        assert not running.done(), running
        counters = feed.counters
        assert counters["ticker"] > 10_000
        assert not [name for name in counters if name.startswith("malformed")]
        assert not feed.trouble
        bid, ask = feed.board.bid, feed.board.ask
        both = np.isfinite(bid) & np.isfinite(ask)
        assert both.sum() > 300
        assert (bid[both] < ask[both]).all()
        stop.set()
        await running


def test_a_burst_over_a_real_socket() -> None:
    asyncio.run(burst())


def test_a_tick_of_the_exchange_is_a_tenth_of_a_second() -> None:
    assert World().exchange.tick_ns == TICK
