"""Several connections under one set of ids, and the feed held by hand."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    START,
    Server,
    future_row,
    index_price,
    notification,
    option_row,
    standard_listings,
    state_change,
    ticker,
)
from tests.feeds.loopback import TIMEOUT, Peer, eventually, tcp_server, websocket_server
from volsurf.errors import ConfigError
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.feed import Feed
from volsurf.feeds.protocol import Event, Health, HealthEvent, InstrumentEvent, TradeEvent
from volsurf.feeds.registry import make_venues
from volsurf.feeds.venue_feed import VenueFeed
from volsurf.quotes import QuoteBatch, QuoteBoard

NAMES = [f"BTC-26MAR27-{strike * 1000}-{side}" for strike in range(50, 100) for side in "CP"]


def sharded(count: int) -> tuple[VenueFeed, list[Server]]:
    """A feed of some shards, each connected to its own server, under a clock that stands still."""
    listings = {("BTC", "option"): [option_row(n) for n in NAMES], ("BTC", "future"): [future_row("BTC-PERPETUAL")]}
    venues = make_venues("deribit", ["BTC"], shards=count, url="ws://127.0.0.1:1")
    feed = VenueFeed(venues, number=3, clock=lambda: START)
    servers = [Server(venue, dict(listings)).connect() for venue in venues if isinstance(venue, Deribit)]
    return feed, servers


def symbols(feed: VenueFeed, batch: QuoteBatch | None) -> list[str]:
    assert batch is not None
    return [feed.universe[int(row)].symbol for row in batch.instrument_id]


def test_shards_share_one_universe() -> None:
    feed, servers = sharded(3)
    assert feed.is_ready
    _, events = feed.collect()
    assert len(feed.universe) == len(NAMES) + 2
    assert {i.symbol for i in feed.universe} == {*NAMES, "BTC-PERPETUAL", "btc_usd"}
    added = Counter(row for event in events if isinstance(event, InstrumentEvent) for row in event.added)
    index = feed.universe.find("deribit", "btc_usd")
    assert set(added) == set(range(len(feed.universe)))
    assert all(times == (3 if row == index else 1) for row, times in added.items())
    assert "3 connections, 3 ready" in repr(feed)
    assert len(servers) == 3


def test_rows_of_every_shard_come_in_one_batch_under_the_feeds_ids() -> None:
    feed, servers = sharded(3)
    feed.collect()
    for i, name in enumerate(NAMES):
        for server in servers:  # the venue pushes to whoever subscribed; the others do not know the name
            server.say(ticker(name, best_bid_price=0.001 * (i + 1), best_ask_price=0.5))
    for server in servers:
        server.say(index_price("btc_usd", 76900.0))
    batch, _ = feed.collect()
    assert batch is not None
    assert sorted(symbols(feed, batch)) == sorted([*NAMES, "btc_usd"])
    bids = dict(zip(symbols(feed, batch), batch.bid, strict=True))
    assert all(bids[name] == pytest.approx(0.001 * (i + 1)) for i, name in enumerate(NAMES))
    assert (batch.feed, batch.number, batch.time_ns) == (3, 1, START)
    assert len(set(batch.instrument_id.tolist())) == len(batch)
    assert feed.collect() == (None, [])
    servers[0].say(index_price("btc_usd", 76901.0))
    batch, _ = feed.collect()
    assert batch is not None
    assert batch.number == 2
    assert batch.index.tolist() == [76901.0]


def test_many_messages_are_one_row() -> None:
    feed, (server,) = sharded(1)
    feed.collect()
    for i in range(1000):
        server.say(ticker(NAMES[0], best_bid_price=0.001 + 1e-6 * i, best_ask_price=0.5))
    batch, _ = feed.collect()
    assert batch is not None
    assert len(batch) == 1
    assert batch.bid[0] == 0.001 + 1e-6 * 999


def test_a_mark_by_itself_and_a_ticker_are_one_row_too() -> None:
    venue = Deribit(["BTC"], mark_prices=True)
    server = Server(venue).connect()
    feed = VenueFeed([venue], clock=lambda: START)
    feed.collect()
    mark = {"timestamp": START // 1_000_000 + 5, "instrument_name": BTC_OPTIONS[0], "mark_price": 0.007, "iv": 0.5}
    server.say(ticker(BTC_OPTIONS[0]), notification("markprice.options.btc_usd", [mark]))
    batch, _ = feed.collect()
    assert batch is not None
    assert len(batch) == 1
    assert (batch.bid[0], batch.mark[0], batch.mark_vol[0]) == (0.0065, 0.007, 0.5)


def test_events_are_translated() -> None:
    feed, servers = sharded(3)
    feed.collect()
    name = NAMES[7]
    trade = {"timestamp": 5, "price": 0.1, "amount": 2, "direction": "buy", "instrument_name": name, "trade_id": "9"}
    for server in servers:
        server.say(notification("trades.option.BTC.100ms", [trade]), state_change(NAMES[8], "delivered"))
    _, events = feed.collect()
    (told,) = [event for event in events if isinstance(event, TradeEvent)]
    assert feed.universe[told.instrument_id].symbol == name
    (gone,) = [event for event in events if isinstance(event, InstrumentEvent)]
    assert [feed.universe[row].symbol for row in gone.retired] == [NAMES[8]]
    assert not feed.universe.active[gone.retired[0]]
    for server in servers:
        server.say(state_change(NAMES[8], "open"))
        server.now += 1
        server.wait(1.5)
    _, events = feed.collect()
    (back,) = [event for event in events if isinstance(event, InstrumentEvent)]
    assert back.added == gone.retired
    assert feed.universe.active[gone.retired[0]]
    assert len(feed.universe) == len(NAMES) + 2


def test_one_shard_lost_clears_its_own_quotes_only() -> None:
    feed, servers = sharded(2)
    for name in NAMES:
        for server in servers:
            server.say(ticker(name))
    feed.collect()
    mine = {i.symbol for i in servers[0].venue.universe} - {"btc_usd", "BTC-PERPETUAL"}
    servers[0].venue.disconnected(START, "closed")
    assert not feed.is_ready
    batch, events = feed.collect()
    assert batch is not None
    assert set(symbols(feed, batch)) == mine
    assert all(map(math.isnan, batch.bid))
    assert [e.kind for e in events if isinstance(e, HealthEvent)] == [Health.DISCONNECTED]
    assert np.isfinite(feed.board.bid).sum() == len(NAMES) - len(mine)


def test_a_snapshot_holds_every_last_value() -> None:
    feed, servers = sharded(2)
    for name in NAMES[:10]:
        for server in servers:
            server.say(ticker(name))
    for server in servers:
        server.say(index_price("btc_usd", 76900.0))
    batch, _ = feed.collect()
    assert batch is not None
    snapshot = feed.snapshot()
    assert snapshot.number == batch.number == 1
    late, early = QuoteBoard(feed.universe), QuoteBoard(feed.universe)
    late.apply(QuoteBatch.from_bytes(snapshot.to_bytes()))
    early.apply(batch)
    for name in ("bid", "ask", "bid_size", "mark", "mark_vol", "forward", "index", "last", "venue_time_ns"):
        assert np.array_equal(getattr(late, name), getattr(early, name), equal_nan=True), name


def test_a_feed_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one venue"):
        VenueFeed([])


# Running


async def push(connection: ServerConnection, names: list[str]) -> None:
    """Tickers, again and again."""
    for i in range(100_000):
        for name in names:
            await connection.send(ticker(name, best_bid_price=0.001 + 1e-6 * (i % 1000)).decode())
        await asyncio.sleep(0.001)


def peer_pushing(names: list[str]) -> Peer:
    peer = Peer()
    peer.when_ready = lambda connection: push(connection, names)
    return peer


async def test_two_connections_run_until_stopped_and_say_goodbye() -> None:
    peer = peer_pushing(list(BTC_OPTIONS))
    batches: list[QuoteBatch] = []
    events: list[Event] = []

    def on_tick(batch: QuoteBatch | None, happened: list[Event]) -> None:
        events.extend(happened)
        if batch is not None:
            batches.append(batch)

    async with websocket_server(peer) as url:
        feed = VenueFeed(make_venues("deribit", ["BTC"], url=url, shards=2), tick=0.005, seed=1, proxy=None)
        stop = asyncio.Event()
        task = asyncio.ensure_future(feed.run(stop, on_tick))
        await eventually(lambda: feed.is_ready and len(batches) >= 5)
        assert peer.connections == 2
        stop.set()
        async with asyncio.timeout(TIMEOUT):
            await task
        await eventually(lambda: not peer.open)
    assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
    assert np.isnan(batches[-1].bid).all(), "the last batch clears what was quoted"
    kinds = Counter(event.kind for event in events if isinstance(event, HealthEvent))
    assert kinds[Health.READY] == kinds[Health.DISCONNECTED] == 2
    assert feed.counters["ticker"] > 0


async def test_an_error_of_the_receiver_stops_the_sockets_and_is_raised() -> None:
    peer = peer_pushing(list(BTC_OPTIONS))

    def on_tick(batch: QuoteBatch | None, happened: list[Event]) -> None:
        if batch is not None:
            raise BrokenPipeError("the core is gone")

    async with websocket_server(peer) as url:
        feed = VenueFeed(make_venues("deribit", ["BTC"], url=url), proxy=None)
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(BrokenPipeError, match="the core is gone"):
                await feed.run(asyncio.Event(), on_tick)
        await eventually(lambda: not peer.open)


async def test_an_unknown_underlying_ends_every_shard() -> None:
    async with websocket_server(Peer()) as url:
        feed = VenueFeed(make_venues("deribit", ["FOO"], url=url, shards=2), proxy=None)
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(ConfigError, match="FOO_USDC"):
                await feed.run(asyncio.Event(), lambda batch, events: None)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: make_venues("deribi", ["BTC"]), "there are deribit, okx, bybit, binance"),
        (lambda: make_venues("deribit", ["BTC"], shards=0), "at least one connection"),
        (lambda: Feed("deribit", ["BTC-PERPETUAL"]), "underlying of Deribit"),
    ],
)
def test_arguments_that_cannot_be(call: Callable[[], Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        call()


# Held by hand


async def test_a_feed_in_a_cell() -> None:
    peer = peer_pushing(list(BTC_OPTIONS))
    async with websocket_server(peer) as url:
        feed = Feed("deribit", underlyings=["BTC"], url=url, tick=0.005)
        board = QuoteBoard(feed.universe)
        stop = asyncio.Event()
        count = 0
        async for batch in feed.batches(until=stop):
            board.apply(batch)
            count += 1
            if count >= 5 and np.isfinite(board.bid).sum() == len(BTC_OPTIONS):
                stop.set()
        await eventually(lambda: not peer.open)
        assert {i.symbol for i in feed.universe if i.strike > 0} == set(BTC_OPTIONS)
        assert any(isinstance(event, InstrumentEvent) for event in feed.events)
        assert feed.counters["ticker"] > 0
        # It can be read again, from a new socket.
        async for batch in feed.batches(until=TIMEOUT):
            if np.isfinite(batch.bid).any():
                break
        await eventually(lambda: peer.connections == 2 and not peer.open)


async def test_a_feed_ends_after_so_many_seconds_even_where_nobody_answers() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(never) as url, asyncio.timeout(TIMEOUT):
        async for _ in Feed("deribit", ["BTC"], url=url).batches(until=0.05):
            raise AssertionError("nothing can come")


async def test_a_feed_is_read_by_one_at_a_time_and_says_what_is_not_listed() -> None:
    peer = peer_pushing(list(BTC_OPTIONS))
    async with websocket_server(peer) as url:
        feed = Feed("deribit", ["BTC"], url=url)
        batches = feed.batches(until=TIMEOUT)
        await anext(batches)
        with pytest.raises(ConfigError, match="being read already"):
            await anext(feed.batches())
        await batches.aclose()  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="FOO_USDC"):
            async for _ in Feed("deribit", ["FOO"], url=url).batches(until=TIMEOUT):
                pass
    assert standard_listings()
