"""The OKX protocol on the simulated OKX: in memory under a clock moved by hand, and over a real socket."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

import numpy as np
import pytest

from tests.feeds.loopback import eventually
from tests.sim.okx_venue import Pair, pair
from tests.sim.venue import JUST_BEFORE_EIGHT, SECOND, START, TICK
from volsurf.feeds.book import BookState
from volsurf.feeds.books import BookTable
from volsurf.feeds.okx import Okx, make
from volsurf.feeds.protocol import BookEvent, Health, HealthEvent, InstrumentEvent, TradeEvent
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.instruments import Kind, Settlement
from volsurf.quotes import QuoteBoard
from volsurf.sim.depth import ladder
from volsurf.sim.market import Market
from volsurf.sim.okx import OkxExchange, SimulatedOkx
from volsurf.sim.quoting import QuoteRules


def quoted(board: QuoteBoard) -> int:
    """Options with a price on some side."""
    return int((np.isfinite(board.bid) | np.isfinite(board.ask)).sum())


def check_board(made: Pair) -> int:
    """Every quote on the board is what the venue shows now; returns how many were compared."""
    q, listing = made.exchange.quotes, made.exchange.listing
    compared = 0
    for row, instrument in enumerate(made.venue.universe):
        if instrument.kind is Kind.INDEX or not made.venue.universe.active[row]:
            continue
        there = listing.row_of[instrument.symbol]
        for mine, theirs in ((made.board.bid, q.bid), (made.board.ask, q.ask)):
            assert mine[row] == theirs[there] or (math.isnan(mine[row]) and math.isnan(theirs[there]))
        for mine, theirs in ((made.board.bid_size, q.bid_size), (made.board.ask_size, q.ask_size)):
            if not math.isnan(mine[row]):
                size = mine[row]
                if instrument.kind is not Kind.OPTION and instrument.settlement is Settlement.INVERSE:
                    continue  # dollars in the model
                assert size == pytest.approx(float(theirs[there]))
        compared += 1
    return compared


def health(made: Pair, *kinds: Health) -> list[HealthEvent]:
    return [event for event in made.seen if isinstance(event, HealthEvent) and event.kind in kinds]


@pytest.mark.parametrize("quotes", ["bbo-tbt", "tickers"])
def test_the_board_is_what_the_venue_shows(quotes: str) -> None:
    made = pair("BTC", quotes=quotes)
    made.run(2)
    assert check_board(made) > 900
    universe, board, market = made.venue.universe, made.board, made.exchange.market
    options = universe.options()
    assert {universe[int(row)].settlement for row in options} == {Settlement.INVERSE, Settlement.LINEAR}
    for row in options[:: len(options) // 40]:
        instrument = universe[int(row)]
        assert board.forward[row] == pytest.approx(float(market.truth_forward("BTC", instrument.expiry_ns)), rel=2e-4)
        vol = float(market.truth_vol("BTC", instrument.expiry_ns, instrument.strike))
        assert board.mark_vol[row] == pytest.approx(vol, rel=0.02)
        there = made.exchange.listing.row_of[instrument.symbol]
        mark = board.mark[row]
        if instrument.settlement is Settlement.INVERSE and made.exchange.quotes.mark[there] > 2e-4:
            assert mark == pytest.approx(made.exchange.quotes.mark[there], rel=0.03)
        greeks = made.venue.greeks(int(row))
        assert greeks is not None
        assert greeks.delta == pytest.approx(made.exchange.quotes.delta[there], abs=0.02)
    index = universe.find("okx", "BTC-USD")
    assert board.index[index] == pytest.approx(market.spot("BTC"), rel=1e-6)
    assert made.venue.trouble == ""
    assert made.venue.counters["quote_unknown"] == 0


def books_of(made: Pair, table: BookTable, events: Iterable[object]) -> None:
    for event in events:
        if isinstance(event, BookEvent):
            table.apply(event, made.now)


def check_books(made: Pair, table: BookTable) -> int:
    """Every book is the venue's, level by level, in coins."""
    for row in range(len(made.venue.universe)):
        book = table.get(row)
        if book is None:
            continue
        instrument = made.venue.universe[row]
        there = ladder(made.exchange.quotes, made.exchange.listing.row_of[instrument.symbol])
        bids, asks = book.levels()
        for mine, theirs in ((bids, there.bids), (asks, there.asks)):
            assert [price for price, _ in mine.tolist()] == list(theirs)
            if instrument.kind is Kind.OPTION:
                assert [size for _, size in mine.tolist()] == pytest.approx(list(theirs.values()))
    return len(table)


def test_books_and_trades_survive_losses_and_a_reset() -> None:
    made = pair(books=True, trades=True, rules=QuoteRules(trades_per_step=4.0))
    table = BookTable(made.venue.universe)
    made.run(1)
    assert made.session is not None
    for number in range(18):
        if number in (4, 5, 11):
            # A tick whose messages are lost on the way.
            made.now += TICK
            made.exchange.advance(made.now)
            made.session.data_to_send()
        if number == 8:
            made.exchange.reset_sequences()
        made.run(0.1)
    # What was lost shows with the next change of a book: every one gets one.
    rows = np.arange(len(made.exchange.listing.universe))
    made.exchange.quotes.distort("spike", rows, made.exchange.market.now_ns + SECOND, 0.2)
    made.run(2)
    gaps = made.venue.counters["book_gaps"]
    assert gaps > 5
    assert len(health(made, Health.GAP)) == gaps
    books_of(made, table, made.seen)
    assert check_books(made, table) > 200
    assert table.counters["gap"] == gaps, "whoever keeps the books learns of every gap"
    assert not any(table[row].state is BookState.WAITING for row in range(len(made.venue.universe)) if table.get(row))
    assert made.venue._link.books.resets > 50
    trades = [event for event in made.seen if isinstance(event, TradeEvent)]
    assert len(trades) > 5
    assert all(trade.size >= 0.01 and trade.price > 0 for trade in trades)
    assert made.venue.failure is None


def test_a_cut_clears_the_board_and_a_reconnect_fills_it() -> None:
    made = pair()
    made.run(1)
    assert quoted(made.board) > 200
    made.cut()
    assert quoted(made.board) == 0
    made.run(0.5)
    made.connect()
    made.run(0.2)
    assert made.venue.is_ready
    assert check_board(made) > 200
    assert quoted(made.board) > 200


def test_half_open_silence_ends_within_the_venues_own_limit() -> None:
    made = pair()
    made.run(1)
    made.is_silent = True
    made.run(22, SECOND)
    assert made.session is None
    (end,) = health(made, Health.DISCONNECTED)
    assert "no pong within" in end.detail
    assert end.time_ns < START + 17 * SECOND
    assert quoted(made.board) == 0
    made.is_silent = False
    made.connect()
    made.run(0.2)
    assert check_board(made) > 200


def test_an_upgrade_asks_for_a_takeover_a_minute_before_the_cut() -> None:
    made = pair()
    made.run(1)
    made.exchange.announce_upgrade(made.now, seconds=5)
    made.run(0.2)
    assert "64008" in made.venue.takeover
    twin = made.venue.twin()
    assert isinstance(twin, Okx)
    other = Pair(twin, made.exchange)
    other.now = made.now
    other.connect()
    assert twin.is_ready
    made.run(6, SECOND // 2)
    assert made.session is None, "the old one is cut"
    assert quoted(made.board) == 0
    other.now = made.now
    other.run(1)
    assert check_board(other) > 200


def test_refusals_and_rate_limits_pass() -> None:
    market = Market(1, ("BTC",), start_ns=START)
    for what, seconds in (("subscribe", 12.0), ("rate_limit", 3.0)):
        made = Pair(
            Okx(["BTC_USD_UM"], url="ws://sim.test/ws/v5/public"),
            OkxExchange(market, origin_ns=START, connections_per_second=100),
        )
        made.session = made.exchange.open_session(made.now)
        made.session.refuse_next(what)
        made.venue.connected(made.now)
        made.pump()
        assert not made.venue.is_ready
        made.run(seconds, SECOND // 2)
        assert made.venue.is_ready, what
        assert health(made, Health.REFUSED if what == "subscribe" else Health.RATE_LIMITED)
        assert not made.venue.refused_channels
        assert check_board(made) > 200


def test_maintenance_is_told_and_outlived() -> None:
    made = pair()
    made.run(1)
    made.exchange.begin_maintenance(made.now, 5)
    made.run(0.3)
    assert made.session is None
    assert any("64008" in event.detail for event in health(made, Health.MAINTENANCE))
    made.connect()
    assert any("50001" in event.detail for event in made.venue.events() if isinstance(event, HealthEvent))
    made.run(12, SECOND // 2)
    if made.session is None:
        made.connect()
    assert made.venue.is_ready
    assert check_board(made) > 200


def test_expiry_and_new_listings_at_eight() -> None:
    market = Market(1, ("BTC",), start_ns=JUST_BEFORE_EIGHT - 2 * SECOND)
    made = Pair(Okx(["BTC_USD_UM"], url="ws://sim.test/ws"), OkxExchange(market, origin_ns=START)).connect()
    made.now = START
    before = {made.venue.universe[int(row)].symbol for row in made.venue.universe.options()}
    made.run(6)
    after = {made.venue.universe[int(row)].symbol for row in made.venue.universe.options()}
    assert {name for name in before if "-261127-" in name} == before - after
    assert after - before, "and what was listed then is followed"
    changes = [event for event in made.seen if isinstance(event, InstrumentEvent)]
    assert any(event.retired for event in changes)
    made.run(0.2)
    assert check_board(made) > 150
    gone = [row for row, instrument in enumerate(made.venue.universe) if "-261127-" in instrument.symbol]
    assert np.isnan(made.board.bid[gone]).all()
    assert np.isnan(made.board.ask[gone]).all()


def test_an_expiry_that_vanishes_leaves_the_board() -> None:
    made = pair()
    made.run(2)
    expiry = int(made.venue.universe.expiry_ns[made.venue.universe.options()[0]])
    rows = np.flatnonzero(made.venue.universe.expiry_ns == expiry)
    assert np.isfinite(made.board.bid[rows]).any()
    made.exchange.vanish("BTC", expiry)
    made.run(45, SECOND)
    assert np.isnan(made.board.bid[rows]).all()
    assert np.isnan(made.board.ask[rows]).all()
    assert not made.venue.universe.active[rows].any()
    assert check_board(made) > 200


def test_suspended_instruments_are_not_quoted() -> None:
    made = pair()
    made.run(1)
    row = int(made.venue.universe.options()[40])
    there = made.exchange.listing.row_of[made.venue.universe[row].symbol]
    made.exchange.suspend([there])
    made.run(1)
    assert math.isnan(made.board.bid[row])
    assert math.isnan(made.board.ask[row])
    made.exchange.suspend([there], False)
    made.run(0.5)
    assert health(made, Health.RECOVERED)


def test_the_same_seed_gives_the_same_batches() -> None:
    runs = []
    for _ in range(2):
        made = pair(books=True, trades=True, seed=7)
        made.run(1.5)
        made.cut()
        made.connect()
        made.run(0.5)
        runs.append(made.batches)
    assert runs[0] == runs[1]
    assert len(runs[0]) > 15


async def test_a_session_over_a_real_socket() -> None:
    market = Market(1, ("BTC",), start_ns=START)
    # Two connections share the pages: a third of a second more for the second's fourth question.
    async with SimulatedOkx(market) as server:
        feed = VenueFeed(make(["BTC_USD_UM"], url=server.url, shards=2, books=True, trades=True), books=True)
        stop = asyncio.Event()
        task = asyncio.ensure_future(feed.run(stop, lambda batch, events: None))
        try:
            await eventually(lambda: feed.is_ready and quoted(feed.board) > 200)
            assert feed.trouble == "" or "clock" in feed.trouble
            assert {feed.universe[int(row)].symbol[:11] for row in feed.universe.options()} == {"BTC-USD_UM-"}
            assert len(feed.universe.options()) == len(
                [1 for said in server.exchange.listing.objects if said["instFamily"] == "BTC-USD_UM"]
            )
        finally:
            stop.set()
            await task
        assert feed.counters.get("book_gaps", 0) == 0
        assert sum(count for name, count in feed.counters.items() if name.startswith("malformed")) == 0


async def test_a_burst_over_a_real_socket() -> None:
    market = Market(1, ("BTC",), start_ns=START)
    async with SimulatedOkx(market, rate=20_000) as server:
        feed = VenueFeed(make(["BTC_USD_UM"], url=server.url))
        stop = asyncio.Event()
        task = asyncio.ensure_future(feed.run(stop, lambda batch, events: None))
        try:
            await eventually(lambda: feed.is_ready and feed.counters.get("bbo-tbt", 0) > 5_000)
        finally:
            stop.set()
            await task
        assert sum(count for name, count in feed.counters.items() if name.startswith("malformed")) == 0
        assert feed.counters["bbo-tbt"] > 5_000
