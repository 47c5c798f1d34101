"""More messages than can be decoded: only the newest of each instrument is, and nothing that must be answered waits for it."""

from __future__ import annotations

import json

import pytest

from tests.feeds.deribit_frames import BTC_OPTIONS, TEST_REQUEST, Server, state_change, ticker
from volsurf.feeds import _deribit_values
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.venue_feed import next_tick
from volsurf.quotes import Field


@pytest.fixture
def server() -> Server:
    server = Server(Deribit(["BTC"])).connect()
    server.events()
    server.venue.take_quotes(server.now)
    return server


def other_order(name: str, **changes: float) -> bytes:
    """A ticker whose keys come in another order than Deribit has always sent."""
    message = json.loads(ticker(name, **changes))
    return json.dumps({"params": message["params"], "method": message["method"], "jsonrpc": "2.0"}).encode()


def test_a_heartbeat_behind_a_flood_is_answered_before_any_of_it_is_decoded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = _deribit_values.decode_ticker_notification
    monkeypatch.setattr(
        _deribit_values, "decode_ticker_notification", lambda data: decoded.append(data) or decode(data)
    )
    flood = [ticker(name, best_bid_price=1e-4 * (1 + i)) for i in range(500) for name in BTC_OPTIONS]
    server.say(*flood, TEST_REQUEST)
    assert [request["method"] for request in server.collect()] == ["public/test"]
    assert not decoded
    batch = server.venue.take_quotes(server.now)
    assert len(decoded) == len(BTC_OPTIONS)
    assert batch is not None
    assert len(batch) == len(BTC_OPTIONS)
    assert batch.bid.tolist() == [0.05] * len(BTC_OPTIONS)
    # All of them were heard.
    assert server.venue.counters["ticker"] == len(flood)


def test_the_newest_wins_in_whatever_order_of_keys_it_comes(server: Server) -> None:
    name = BTC_OPTIONS[0]
    usual, unusual = ticker(name, best_bid_price=0.001), other_order(name, best_bid_price=0.002)
    for messages, bid in (((usual, unusual), 0.002), ((unusual, usual), 0.001)):
        server.say(*messages)
        batch = server.venue.take_quotes(server.now)
        assert batch is not None
        assert batch.bid.tolist() == [bid]


def test_a_ticker_nobody_has_looked_at_does_not_survive_what_came_after_it(server: Server) -> None:
    paused, closed, lost = BTC_OPTIONS[:3]
    for name in BTC_OPTIONS:
        server.say(ticker(name))
    server.venue.take_quotes(server.now)
    # Halted and open again within one tick: the price of before is no quote of after.
    server.say(ticker(paused), state_change(paused, "halted"), state_change(paused, "open"))
    server.say(ticker(closed), state_change(closed, "settlement"))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    rows = {server.venue.universe[int(row)].symbol: i for i, row in enumerate(batch.instrument_id)}
    assert set(rows) == {paused, closed}
    assert (batch.bid != batch.bid).all()
    assert (batch.fields & Field.QUOTE).all()
    # Neither does one of a connection that is gone.
    server.say(ticker(lost, best_bid_price=0.007))
    server.venue.disconnected(server.now, "gone")
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert (batch.bid != batch.bid).all()


def test_a_loop_that_ticks_late_reads_for_as_long_as_it_ticks() -> None:
    assert next_tick(5.0, 0.01, 5.0, 5.002) == 5.01
    # Late by three ticks: not at once, so that the sockets are read, and not three times.
    assert next_tick(5.0, 0.01, 5.03, 5.05) == pytest.approx(5.07)
