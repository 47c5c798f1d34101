"""One connection to Bybit through everything that goes wrong, under a clock moved by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.feeds.bybit_frames import (
    BTC_USDC,
    BTC_USDT,
    PONG,
    PONG_ELSEWHERE,
    SECOND,
    START,
    Server,
    book,
    change,
    option_row,
    ready,
    ticker,
    ticker_of_2023,
)
from volsurf.feeds import _bybit_values
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import BookEvent, Health, InstrumentEvent

HOUR = 3600.0
NINE = START + 3600 * SECOND


def at_nine(*underlyings: str, **options: bool) -> Server:
    """A connection that has everything, an hour after an expiry."""
    server = Server(Bybit(underlyings or ("BTC",), **options))  # type: ignore[arg-type]
    server.now = NINE
    server.connect()
    server.wait(2)
    server.events()
    server.venue.take_quotes(server.now)
    return server


# Pings


def test_a_ping_every_twenty_seconds() -> None:
    server = at_nine()
    before = len(server.asked)
    server.wait(100)
    pings = [command for command in server.asked[before:] if command["op"] == "ping"]
    assert len(pings) == 5
    assert len({command["req_id"] for command in pings}) == 5
    assert server.venue.counters["pongs"] == server.venue.counters["pings"]


@pytest.mark.parametrize("pong", [PONG, PONG_ELSEWHERE, b'{"op":"pong"}', b'{"args":["later"],"op":"pong"}'])
def test_every_shape_of_a_pong_is_one(pong: bytes) -> None:
    server = at_nine()
    server.is_dumb = True
    server.wait(20)
    server.say(pong)
    server.wait(10)
    assert server.venue.failure is None
    assert server.venue.counters["pongs"] == 1


def test_without_a_pong_the_connection_is_given_up() -> None:
    server = at_nine()
    server.is_dumb = True
    server.wait(27.5)
    assert server.venue.failure is None
    server.wait(2)
    assert server.venue.failure == "a ping was not answered within 10 s"
    assert [event.kind for event in server.health(Health.NO_ACK)] == [Health.NO_ACK]


def test_pings_go_ahead_of_subscriptions() -> None:
    server = Server(Bybit(["BTC"]))
    server.now = NINE
    server.venue.connected(server.now)
    server.collect()
    page = server.requests.pop()
    server.idle(19.9)
    server.answer_page(page)
    server.now += SECOND // 5
    server.venue.timer(server.now)
    assert [json.loads(data)["op"] for data in server.venue.data_to_send()] == ["ping", "subscribe"]


# Silence


def test_a_silent_server_is_stale_then_pinged_then_given_up() -> None:
    server = at_nine()
    server.wait(9, serve=False)
    assert not server.health(Health.STALE)
    server.wait(2, serve=False)
    (stale,) = server.health(Health.STALE)
    assert stale.detail.startswith("tickers of BTC silent for 1")
    assert server.venue.trouble == stale.detail
    assert "ping" in [command["op"] for command in server.collect()]
    server.wait(10, serve=False)
    assert server.venue.failure == "a ping was not answered within 10 s"


def test_tickers_that_stop_on_a_link_that_lives() -> None:
    server = at_nine()
    topics = tuple(server.subscribed)
    server.wait(12, quiet=topics)
    assert len(server.health(Health.STALE)) == 1, "told once, not at every timer"
    assert server.venue.failure is None
    server.say(ticker(BTC_USDT[0], server.ms))
    server.wait(1, quiet=topics)
    assert [event.kind for event in server.health()] == [Health.RECOVERED]
    server.wait(61, quiet=topics)
    assert server.venue.failure == "tickers of BTC silent for 60 s on a connection that answers"


def test_one_silent_coin_of_two_is_named() -> None:
    server = at_nine("BTC", "XRP")
    quiet = tuple(topic for topic in server.subscribed if "XRP" in topic)
    server.wait(12, quiet=quiet)
    (stale,) = server.health(Health.STALE)
    assert "XRP" in stale.detail


def test_a_coin_of_which_nothing_is_followed_is_not_missed() -> None:
    server = Server(Bybit(["BTC", "XRP"]))
    server.listings["XRP"] = [row | {"status": "PreLaunch"} for row in server.listings["XRP"]]
    server.now = NINE
    server.connect()
    server.wait(30)
    assert not server.health(Health.STALE)


# Clocks


@pytest.mark.parametrize("step", [-HOUR, -1.0, 6.0, HOUR, 400 * 86400.0, -400 * 86400.0])
def test_a_clock_step_is_told_and_nothing_expires_or_goes_stale(step: float) -> None:
    server = at_nine()
    before = int(server.venue.universe.active.sum())
    server.now += round(step * SECOND)
    server.venue.timer(server.now)
    (told,) = server.health()
    assert told.kind is Health.CLOCK_STEP
    assert f"{abs(step):.1f} s" in told.detail
    assert "ping" in [command["op"] for command in server.collect()], "the socket may be dead: ask"
    # From here the venue's own time goes on as it was, whatever the local clock says.
    offset = round(step * 1000)
    for _ in range(120):
        server.now += SECOND // 2
        server.say(*(ticker(name, server.ms - offset) for name in (*BTC_USDT, *BTC_USDC)))
        server.say(json.dumps({"args": [str(server.ms - offset)], "op": "pong"}).encode())
        server.venue.timer(server.now)
        server.venue.take_quotes(server.now)
        server.collect()
    assert server.venue.failure is None
    assert int(server.venue.universe.active.sum()) == before
    assert not server.health(Health.STALE)
    if abs(step) > 10:
        assert f"{abs(step):.0f} s {'ahead of' if step > 0 else 'behind'} the venue's" in server.venue.trouble


def test_after_a_suspension_a_dead_socket_is_noticed() -> None:
    server = at_nine()
    server.now += 3600 * SECOND
    server.venue.timer(server.now)
    server.collect()
    server.wait(10.5, serve=False)
    assert server.venue.failure == "a ping was not answered within 10 s"


def test_the_deadline_is_never_more_than_a_second_away() -> None:
    server = at_nine()
    for _ in range(100):
        deadline = server.venue.next_deadline
        assert deadline is not None
        assert server.now < deadline <= server.now + SECOND
        server.now = deadline
        server.say(ticker(BTC_USDT[0], server.ms))
        server.venue.timer(server.now)
        server.serve()
    server.venue.disconnected(server.now, "closed")
    assert server.venue.next_deadline is None


# Expiry


def expiring() -> Server:
    """Ten seconds before the expiry of one contract."""
    server = Server(Bybit(["BTC"]))
    server.now = START + (86_400 - 10) * SECOND
    server.connect()
    server.events()
    server.venue.take_quotes(server.now)
    return server


def test_what_expires_is_retired_when_both_clocks_have_passed_it() -> None:
    server = expiring()
    name = BTC_USDT[3]
    server.wait(14)
    assert not [e for e in server.events() if isinstance(e, InstrumentEvent)]
    server.listings["BTC"] = [row for row in server.listings["BTC"] if row["symbol"] != name]
    server.wait(3)
    (event,) = (e for e in server.events() if isinstance(e, InstrumentEvent))
    assert [server.venue.universe[row].symbol for row in event.retired] == [name]
    assert f"tickers.{name}" not in server.subscribed
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    at = batch.instrument_id.tolist().index(event.retired[0])
    assert math.isnan(batch.bid[at])
    assert math.isnan(batch.ask[at])
    # Nothing else happens, and the venue's last word on it is nobody's.
    server.say(ticker(name, server.ms))
    server.wait(200, step=1.0)
    assert not [e for e in server.events() if isinstance(e, InstrumentEvent)]


@pytest.mark.parametrize("venue_is_ahead", [True, False])
def test_one_clock_alone_retires_nothing(venue_is_ahead: bool) -> None:
    server = expiring()
    for _ in range(20):
        ahead = 3_600_000
        stamp = server.ms + ahead if venue_is_ahead else server.ms
        server.say(ticker(BTC_USDT[0], stamp))
        if not venue_is_ahead:
            server.now += SECOND // 4
        server.venue.timer(server.now)
        server.serve()
    assert bool(server.venue.universe.active.all())


def test_a_contract_that_is_delivered_early_goes_with_the_listing() -> None:
    server = at_nine()
    for row in server.listings["BTC"][:1]:
        row["status"] = "Delivering"
    server.wait(320, step=1.0)
    (event,) = (e for e in server.events() if isinstance(e, InstrumentEvent))
    assert [server.venue.universe[row].symbol for row in event.retired] == [BTC_USDT[0]]


def test_a_morning_with_its_eight_o_clock() -> None:
    """Three hours before and three minutes after: what expires goes, new contracts come, and nothing else happens."""
    server = Server(Bybit(["BTC"]))
    server.now = START + 21 * 3600 * SECOND
    tomorrow = [f"BTC-16JAN27-{strike}-{side}-USDT" for strike in range(70_000, 75_000, 1_000) for side in "CP"]
    after = [name.replace("16JAN27", "17JAN27") for name in tomorrow]
    server.listings["BTC"] = [option_row(name) for name in (*BTC_USDC, *tomorrow)]
    server.connect()
    server.events()
    server.wait(3 * HOUR - 10, step=1.0, every=9.0)
    assert not server.events()
    server.listings["BTC"] = [option_row(name) for name in (*BTC_USDC, *after)]
    server.wait(200, step=1.0)
    events = [event for event in server.events() if isinstance(event, InstrumentEvent)]
    universe = server.venue.universe
    assert {universe[row].symbol for event in events for row in event.retired} == set(tomorrow)
    assert {universe[row].symbol for event in events for row in event.added} == set(after)
    assert server.venue.failure is None
    assert not server.venue.trouble


# Connections


def test_a_lost_connection_clears_every_quote() -> None:
    server = at_nine("BTC", "XRP")
    server.say(*(ticker(name, server.ms) for name in BTC_USDT))
    server.venue.take_quotes(server.now)
    server.say(ticker(BTC_USDT[0], server.ms + 1, bidPrice="2745"))
    server.venue.disconnected(server.now + 1, "reset by peer")
    batch = server.venue.take_quotes(server.now + 2)
    assert batch is not None
    assert len(batch) == 8
    assert np.isnan(batch.bid).all()
    assert np.isnan(batch.ask).all()
    assert server.venue.take_quotes(server.now + 3) is None
    assert [event.kind for event in server.health()] == [Health.DISCONNECTED]
    assert not server.venue.is_ready
    assert not server.venue.data_to_send()
    assert not server.venue.http_requests()


def test_a_new_connection_starts_from_the_listings() -> None:
    server = at_nine(books=True)
    rows = len(server.venue.universe)
    server.venue.disconnected(server.now, "reset by peer")
    # One contract is gone meanwhile, and one has come.
    server.listings["BTC"] = [*server.listings["BTC"][1:], option_row("BTC-30APR27-90000-C-USDT")]
    server.subscribed.clear()
    server.now += SECOND
    server.connect()
    assert server.venue.is_ready
    assert len(server.venue.universe) == rows + 1
    events = [e for e in server.events() if isinstance(e, InstrumentEvent)]
    assert [server.venue.universe[row].symbol for e in events for row in e.retired] == [BTC_USDT[0]]
    assert [server.venue.universe[row].symbol for e in events for row in e.added] == ["BTC-30APR27-90000-C-USDT"]
    assert f"tickers.{BTC_USDT[0]}" not in server.subscribed
    # Books start from their snapshots again: a change of the old one is waited past.
    assert server.venue.counters["book_gaps"] == 0


def test_a_change_of_a_ticker_from_the_old_connection_has_nothing_to_change() -> None:
    server = at_nine()
    server.venue.disconnected(server.now, "gone")
    server.venue.take_quotes(server.now)
    server.venue.connected(server.now)
    server.say(change(BTC_USDT[0], server.ms, bidPrice="2750"))
    assert server.venue.take_quotes(server.now) is None
    assert server.venue.counters["ticker_awaiting_snapshot"] == 1


def test_a_twin_has_the_same_arguments_and_has_heard_nothing() -> None:
    venue = Bybit(["BTC_USDT", "XRP"], shard=(1, 3), url="ws://h:1/x", books=True, book_depth=100, trades=False)
    twin = venue.twin()
    assert twin._arguments == venue._arguments
    assert twin.url == "ws://h:1/x"
    assert len(twin.universe) == 0
    assert not twin.is_ready
    assert venue.takeover == ""


def test_taken_up_in_mid_conversation() -> None:
    """Changes of books are those that come next, tickers are read, and what is listed is learnt again soon."""
    old = at_nine(books=True)
    venue = Bybit(["BTC"], books=True)
    server = Server(venue)
    server.now = old.now
    instruments = list(old.venue.universe)
    venue.resume(instruments, server.now)
    assert list(venue.universe) == instruments
    assert venue.is_ready
    assert venue.failure is None
    server.events()
    name = BTC_USDT[0]
    server.say(ticker(name, server.ms), book(name, 4711, [["2740", "3"]]), book(name, 4712, [["2740", "0"]]))
    batch = venue.take_quotes(server.now)
    assert batch is not None
    assert {venue.universe[int(row)].symbol for row in batch.instrument_id} == {name, "BTC-USDT-INDEX"}
    events = [e for e in server.events() if isinstance(e, BookEvent)]
    assert [(e.sequence, e.previous_sequence, e.is_snapshot) for e in events] == [
        (4711, 4710, False),
        (4712, 4711, False),
    ]
    server.say(book(name, 4714, [["2741", "3"]]))
    assert [event.kind for event in server.health()] == [Health.GAP]
    server.subscribed = dict.fromkeys(venue._link.topics.owner)
    server.wait(30)
    assert not server.health(Health.STALE)
    assert not venue.trouble
    assert int(venue.universe.active.sum()) == len(instruments)
    server.listings["BTC"] = server.listings["BTC"][1:]
    server.wait(320, step=1.0)
    assert any(isinstance(e, InstrumentEvent) and e.retired for e in server.events())


# More messages than can be decoded


def test_a_flood_is_decoded_once_a_tick_and_only_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ready()
    decoded = []
    decode = _bybit_values.wire.decode_ticker_message
    monkeypatch.setattr(_bybit_values.wire, "decode_ticker_message", lambda data: decoded.append(data) or decode(data))
    names = (*BTC_USDT, *BTC_USDC)
    flood = [ticker(name, server.ms + i, bidPrice=str(i + 1)) for i in range(500) for name in names]
    server.say(*flood)
    assert not decoded
    for _ in range(3):
        # Looking at everything else, often or never, decodes nothing.
        assert server.venue.counters["ticker"] >= len(flood)
        assert (server.venue.trouble, server.venue.failure, server.venue.is_ready) == ("", None, True)
        server.venue.events()
        assert server.venue.next_deadline is not None
    assert not decoded
    batch = server.venue.take_quotes(server.now)
    assert len(decoded) == len(names)
    assert batch is not None
    assert batch.bid[: len(names)].tolist() == [500.0] * len(names)
    assert len(batch) == len(names) + 2


def test_the_newest_wins_in_whatever_order_of_keys_it_comes() -> None:
    server = ready()
    name = BTC_USDT[0]
    usual = ticker(name, server.ms + 1, bidPrice="1")
    unusual = ticker_of_2023(name, server.ms + 2, bidPrice="2")
    late = ticker_of_2023(name, server.ms, bidPrice="3")
    server.say(usual, unusual, late)
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert batch.bid[0] == 2.0
    # And across two ticks.
    server.say(usual)
    assert server.venue.take_quotes(server.now) is None
    assert server.venue.counters["ticker_late"] == 2
    assert server.venue.counters["ticker"] >= 4


def test_a_change_across_ticks() -> None:
    server = ready()
    name = BTC_USDT[0]
    server.say(ticker(name, server.ms + 1))
    server.venue.take_quotes(server.now)
    server.say(change(name, server.ms + 2, askPrice="2790", askSize="7"))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert (batch.bid[0], batch.ask[0], batch.ask_size[0]) == (2740.0, 2790.0, 7.0)
    greeks = server.venue.greeks(int(batch.instrument_id[0]))
    assert greeks is not None
    assert greeks.delta == 0.51782561
