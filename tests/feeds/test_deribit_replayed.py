"""What a replay and a takeover ask of Deribit: the same calls give the same bytes, it can begin anywhere, it has a twin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    SECOND,
    SOL_OPTIONS,
    START,
    TEST_REQUEST,
    Server,
    index_price,
    notification,
    option_row,
    ready,
    state_change,
    ticker,
    ticker_data,
)
from tests.feeds.fuzz import golden
from volsurf.feeds.deribit import TESTNET, Deribit, make
from volsurf.feeds.protocol import Health, HealthEvent, InstrumentEvent
from volsurf.instruments import Kind
from volsurf.quotes import QuoteBatch


def look(venue: Deribit) -> None:
    """Read everything that a shell, a widget or a log might look at."""
    assert venue.counters is not None
    assert [venue.trouble, venue.failure, venue.fatal, venue.is_ready, venue.next_deadline, venue.not_before]
    venue.greeks(0)
    venue.events()


def never(venue: Deribit) -> None:
    """Read nothing."""


def play(reading: Callable[[Deribit], None]) -> list[bytes]:
    """Batches of a connection to which everything is said that can be, broken halves included."""
    server = Server(Deribit(["BTC", "SOL"], books=True, mark_prices=True)).connect()
    batches: list[bytes] = []
    for count, frame in enumerate(golden("deribit") * 2):
        reading(server.venue)
        server.say(ticker(BTC_OPTIONS[count % 4], best_bid_price=0.001 * (1 + count % 7)))
        reading(server.venue)
        server.say(frame if count % 5 else frame[: len(frame) // 2])
        # A broken one that takes the place of the one before.
        server.say(ticker(BTC_OPTIONS[count % 4])[: -1 - count % 300]) if count % 4 == 0 else None
        reading(server.venue)
        server.now += SECOND // 20
        server.venue.timer(server.now)
        server.venue.data_to_send()
        if count % 3 == 0:
            batch = server.venue.take_quotes(server.now)
            batches.append(b"" if batch is None else batch.to_bytes())
    return batches


def test_who_looks_and_how_often_changes_no_batch() -> None:
    quiet, watched = play(never), play(look)
    assert quiet == watched
    assert sum(map(bool, quiet)) > 10


HASHED = """
import json, zlib
from tests.feeds.deribit_frames import *
from volsurf.feeds.deribit import Deribit
server = Server(Deribit(["BTC", "SOL"], books=True))
rows = [option_row(f"BTC-26MAR27-{strike}-C") for strike in range(50_000, 50_700)]
server.listings["BTC", "option"] = rows
server.unknown = {f"ticker.BTC-26MAR27-{strike}-C.100ms" for strike in range(50_000, 50_600)}
server.unknown |= {"ticker.SOL_USDC-29JAN27-120-C.100ms", "book.BTC-PERPETUAL.100ms"}
server.connect()
server.wait(20)
small = Server(Deribit(["BTC", "SOL"], books=True))
small.unknown = {f"book.{name}.100ms" for name in (*BTC_OPTIONS, "BTC-PERPETUAL", *SOL_OPTIONS, "SOL_USDC-PERPETUAL")}
small.connect()
small.wait(5)
server.asked += small.asked
print(zlib.crc32(json.dumps(server.asked).encode()), len(server.asked), server.venue.counters["channels_refused"])
"""


def test_requests_are_numbered_alike_in_every_process() -> None:
    """Names in sets come in another order in every process; the answers in a capture name requests by number."""
    said = [
        subprocess.run(
            [sys.executable, "-c", HASHED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert len(set(said)) == 1
    assert said[0].split()[2] == "602"


def test_looking_at_the_counters_or_the_events_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ready()
    server.say(ticker(BTC_OPTIONS[0]), ticker(BTC_OPTIONS[0], best_bid_price="?"))
    look(server.venue)
    assert server.venue.counters["ticker"] == 2, "what came as tickers"
    server.venue.take_quotes(server.now)
    assert server.venue.counters["ticker"] == 1
    assert server.venue.counters["malformed.schema"] == 1
    (told,) = server.health()
    assert told.kind is Health.MALFORMED


# Twins


def test_a_twin_has_the_same_arguments_and_has_heard_nothing() -> None:
    venue = Deribit(["BTC", "SOL"], shard=(1, 3), url=TESTNET, heartbeat_seconds=15, books=True, trades=False)
    server = Server(venue).connect()
    twin = venue.twin()
    assert twin.url == TESTNET
    assert len(twin.universe) == 0
    assert not twin.is_ready
    asked = list(server.asked)
    again = Server(twin).connect()
    assert again.asked == asked
    assert [i.symbol for i in twin.universe] == [i.symbol for i in venue.universe]
    assert venue.takeover == "", "Deribit has no limit on the life of a connection"


def test_connections_of_a_feed_share_the_instruments() -> None:
    venues = make(["BTC"], shards=2, url=TESTNET, books=True)
    for venue in venues:
        assert isinstance(venue, Deribit)
        Server(venue).connect()
        assert venue.url == TESTNET
    mine = [{i.symbol for i in venue.universe if i.kind is Kind.OPTION} for venue in venues]
    assert mine[0] | mine[1] == set(BTC_OPTIONS)
    assert not mine[0] & mine[1]


# Beginning in the middle


def resumed(**options: bool) -> tuple[Server, Server]:
    """A connection, and another that begins with what the first one follows."""
    first = ready("BTC", "SOL", **options)
    venue = Deribit(["BTC", "SOL"], **options)
    second = Server(venue)
    second.now = first.now
    venue.resume(list(first.venue.universe), first.now)
    return first, second


def test_it_goes_on_as_if_it_had_been_there() -> None:
    first, second = resumed()
    assert second.venue.is_ready
    assert second.venue.data_to_send() == [], "there is nobody to answer"
    assert {i.symbol for i in second.venue.universe} == {i.symbol for i in first.venue.universe}
    events = second.events()
    (listed,) = [event for event in events if isinstance(event, InstrumentEvent)]
    assert len(listed.added) == len(second.venue.universe)
    assert [event.kind for event in events if isinstance(event, HealthEvent)] == [Health.READY]
    said = [
        ticker(BTC_OPTIONS[0]),
        ticker(SOL_OPTIONS[0]),
        index_price("btc_usd", 76900.0),
        index_price("sol_usdc", 150.0),
    ]
    prices = []
    for server in (first, second):
        server.say(*said)
        batch = server.venue.take_quotes(server.now)
        assert batch is not None
        prices.append(
            {server.venue.universe[int(row)].symbol: values(batch, at) for at, row in enumerate(batch.instrument_id)}
        )
    assert prices[0] == prices[1]
    assert len(prices[0]) == 4


def values(batch: QuoteBatch, row: int) -> tuple[float, ...]:
    """The prices of a row, with 0 where there is none."""
    return tuple(np.nan_to_num([batch.bid[row], batch.ask[row], batch.index[row], batch.forward[row]]).tolist())


def test_it_hears_what_others_asked_for() -> None:
    """The capture goes on with the answer to a look-up that was made before: the new listing is followed."""
    first, second = resumed()
    new = "BTC-26MAR27-90000-C"
    rows = first.listings["BTC", "option"] + [option_row(new)]
    first.listings["BTC", "option"] = rows
    second.say(state_change(new, "open"))
    second.events()
    second.reply(4711, rows)
    assert second.venue.universe.find("deribit", new) is not None
    second.say(ticker(new))
    batch = second.venue.take_quotes(second.now)
    assert batch is not None
    assert second.venue.universe[int(batch.instrument_id[0])].symbol == new
    for nothing in ([], ["ticker.x.100ms"], "ok", {"a": 1}, [option_row("ETH-26MAR27-90000-C")]):
        second.reply(4712, nothing)
    assert second.venue.failure is None


def test_silence_and_heartbeats_are_no_failure_of_a_resumed_connection_and_expiry_goes_on() -> None:
    _, second = resumed()
    second.say(TEST_REQUEST)
    assert second.venue.data_to_send() == []
    assert second.venue.counters["heartbeats_answered"] == 1
    second.wait(40, serve=False)
    assert second.venue.failure is None
    assert second.venue.is_ready
    second.say(state_change(BTC_OPTIONS[3], "delivered"))
    retired = [row for event in second.events() if isinstance(event, InstrumentEvent) for row in event.retired]
    assert [second.venue.universe[row].symbol for row in retired] == [BTC_OPTIONS[3]]


def test_a_socket_that_opens_later_is_an_ordinary_one() -> None:
    first, second = resumed()
    for server in (first, second):
        server.venue.disconnected(server.now, "closed")
        server.connect()
        assert server.venue.is_ready
    assert [r["id"] for r in second.asked] == [r["id"] for r in first.asked[-len(second.asked) :]]


def test_only_what_is_wanted_and_of_the_shard_is_resumed() -> None:
    first = ready("BTC", "SOL")
    shards = [Deribit(["BTC"], shard=(i, 2)) for i in range(2)]
    for venue in shards:
        venue.resume(list(first.venue.universe), START)
    symbols = [{i.symbol for i in venue.universe if i.kind is not Kind.INDEX} for venue in shards]
    assert symbols[0] | symbols[1] == {*BTC_OPTIONS, "BTC-26MAR27", "BTC-PERPETUAL"}
    assert not symbols[0] & symbols[1]
    assert all(venue.universe.find("deribit", "btc_usd") is not None for venue in shards)
    assert all(venue.universe.find("deribit", "sol_usdc") is None for venue in shards)


# Reference


def test_strikes_are_in_dollars_or_in_what_stands_for_them() -> None:
    universe = ready("BTC", "SOL").venue.universe
    said = {i.symbol: i.quote_currency for i in universe}
    assert said[BTC_OPTIONS[0]] == said["BTC-PERPETUAL"] == said["btc_usd"] == "USD"
    assert said[SOL_OPTIONS[0]] == said["SOL_USDC-PERPETUAL"] == said["sol_usdc"] == "USDC"


def test_the_venues_own_vols_and_greeks() -> None:
    server = ready()
    name = BTC_OPTIONS[0]
    row = server.venue.universe.find("deribit", name)
    assert row is not None
    greeks = {"delta": 0.25, "gamma": 1e-5, "vega": 120.5, "theta": -40.0, "rho": 3.0}
    assert server.venue.greeks(row) is None
    server.say(ticker(name, greeks=greeks, ask_iv=0.0))
    server.venue.take_quotes(server.now)
    told = server.venue.greeks(row)
    assert told is not None
    assert (told.delta, told.gamma, told.vega, told.theta, told.rho) == (0.25, 1e-5, 120.5, -40.0, 3.0)
    assert (told.mark_vol, told.bid_vol, told.forward) == (pytest.approx(0.312), pytest.approx(0.2957), 76904.4)
    assert np.isnan(told.ask_vol), "0 says that there is none"
    assert told.venue_time_ns == ticker_data(name)["timestamp"] * 1_000_000
    # Another order of keys, and numbers that are none.
    swapped = notification(f"ticker.{name}.100ms", ticker_data(name, greeks={"delta": 0.5}, underlying_price=None))
    server.say(b'{"params"' + swapped.split(b'"params"', 1)[1][:-1] + b',"method":"subscription","jsonrpc":"2.0"}')
    server.venue.take_quotes(server.now)
    told = server.venue.greeks(row)
    assert told is not None
    assert told.delta == 0.5
    assert np.isnan(told.forward)
    server.say(ticker(name, greeks="?"))
    server.venue.take_quotes(server.now)
    assert server.venue.greeks(row) is None
    perpetual = server.venue.universe.find("deribit", "BTC-PERPETUAL")
    assert perpetual is not None
    server.say(ticker("BTC-PERPETUAL"))
    server.venue.take_quotes(server.now)
    assert server.venue.greeks(perpetual) is None
