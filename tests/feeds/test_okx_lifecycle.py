"""One OKX connection through silence, upgrades, clock steps and its end, under a clock moved by hand."""

from __future__ import annotations

import math

import pytest

from tests.feeds.okx_frames import (
    COIN_OPTIONS,
    DOLLAR_OPTIONS,
    NOTICE,
    SECOND,
    START,
    START_MS,
    Server,
    bbo,
    book,
    index,
    instrument_row,
    instruments,
    let_pass,
    ready,
    summary,
    summary_row,
    ticker,
)
from volsurf.feeds._watch import STEP
from volsurf.feeds.okx import Okx
from volsurf.feeds.protocol import BookEvent, Health
from volsurf.instruments import Kind
from volsurf.quotes import QuoteBatch

NAME = COIN_OPTIONS[0]


# Silence


def test_a_silent_server_is_pinged_and_then_given_up() -> None:
    server = ready()
    let_pass(server, 8.9)
    assert not server.held
    assert not server.health()
    let_pass(server, 1.1)
    assert [request["op"] for request in server.held] == ["ping"]
    assert "nothing heard for 9 s" in server.health(Health.STALE)[0].detail
    assert "nothing heard" in server.venue.trouble
    let_pass(server, 3.5)
    assert server.venue.failure is None
    let_pass(server, 1.5)
    assert "no pong within 5 s" in (server.venue.failure or "")
    assert server.venue.counters["pings"] == 1, "15 s in all: before the venue's own 30"


def test_a_pong_keeps_a_quiet_connection() -> None:
    server = ready()
    for _ in range(6):
        let_pass(server, 10.5)
        assert [request["op"] for request in server.held] == ["ping"]
        server.serve()
        server.venue.timer(server.now)
    assert server.venue.failure is None
    assert server.venue.counters["pongs"] == 6
    assert len(server.health(Health.RECOVERED)) == 6


def test_no_ping_where_anything_comes() -> None:
    server = ready()
    server.wait(60, serve=False)
    assert not server.collect()
    assert not server.health()


def test_an_index_that_falls_silent_is_stale_then_lost() -> None:
    server = ready()
    for second in range(200):
        server.say(bbo(NAME))
        server.wait(1, tell=())
        if server.venue.failure is not None:
            break
        assert bool(server.venue.trouble) == (second >= 65)
    assert 178 <= second <= 182
    assert "index BTC-USD silent for 180 s on a connection that answers" in (server.venue.failure or "")
    stale = server.health(Health.STALE)
    assert len(stale) == 1
    assert "once a minute at least" in stale[0].detail


def test_an_index_recovers() -> None:
    server = ready()
    for _ in range(70):
        server.say(bbo(NAME))
        server.wait(1, tell=())
    server.say(index("BTC-USD", 76900, server.now // 10**6))
    assert [e.kind for e in server.health(Health.STALE, Health.RECOVERED)] == [Health.STALE, Health.RECOVERED]
    assert server.venue.trouble == ""


def test_quotes_that_fall_silent_where_there_are_many() -> None:
    rows = [instrument_row(f"BTC-USD-270326-{strike}-C") for strike in range(50_000, 56_000, 100)]
    server = ready("BTC", rows=rows)
    server.wait(21)
    assert "no quote of any instrument for" in server.health(Health.STALE)[0].detail
    server.say(bbo(rows[0]["instId"]))
    server.wait(1)
    assert server.venue.trouble == ""
    assert server.venue.silences["quotes"][0] <= SECOND
    server.wait(58)
    assert server.venue.failure is None
    server.wait(4)
    assert "no quote for 60 s on a connection that answers" in (server.venue.failure or "")
    few = ready("BTC")
    few.wait(60)
    assert few.venue.trouble == ""


def test_a_clock_step_makes_it_ask_whether_the_link_lives() -> None:
    server = ready()
    server.now += 3 * STEP
    server.venue.timer(server.now)
    assert [request["op"] for request in server.collect()] == ["ping"]
    assert len(server.health(Health.CLOCK_STEP)) == 1


def test_a_clock_that_is_not_the_venues_is_told() -> None:
    server = ready()
    for _ in range(4):
        server.wait(0.6, tell=())
        server.say(index("BTC-USD", 76900, server.now // 10**6 - 60_000))
    assert "clock is 60 s ahead of the venue's" in server.venue.trouble


def test_deadlines_never_lie_behind() -> None:
    server = ready("BTC", books=True)
    for step in range(400):
        server.now += SECOND // 3
        if step % 7 == 0:
            server.say(book(NAME, 10, -1), book(NAME, 30, 20), NOTICE)
        server.venue.timer(server.now)
        if step % 3 == 0:
            server.collect()
        deadline = server.venue.next_deadline
        assert deadline is not None
        assert server.now <= deadline <= server.now + SECOND
    server.venue.disconnected(server.now, "over")
    assert server.venue.next_deadline is None


# An upgrade


def test_the_notice_asks_for_a_second_socket() -> None:
    server = ready("BTC", books=True, trades=True, quotes="tickers")
    assert server.venue.takeover == ""
    server.say(NOTICE)
    assert "64008" in server.venue.takeover
    assert "64008" in server.venue.trouble
    assert server.venue.failure is None
    twin = server.venue.twin()
    assert isinstance(twin, Okx)
    assert (twin.url, twin.takeover, len(twin.universe)) == (server.venue.url, "", 0)
    other = Server(twin).connect()
    assert twin.is_ready
    assert other.asked == server.asked, "the same channels, of the same options"
    server.venue.disconnected(server.now, "closed by the venue")
    assert server.venue.takeover == ""


def test_a_twin_of_a_shard_is_that_shard() -> None:
    twin = Okx(["BTC"], url="ws://okx.test", shard=(1, 3), rest_url="http://pages.test").twin()
    twin.connected(START)
    assert twin.http_requests()[0].url.startswith("http://pages.test/api/")
    server = Server(twin)
    server.held = []
    server.venue.connected(START)
    server.wait(2)
    whole = {row["instId"] for row in server.rows}
    followed = {one["instId"] for request in server.asked for one in request["args"] if one["channel"] == "bbo-tbt"}
    assert followed < whole


# The end


def test_a_disconnect_clears_what_was_quoted() -> None:
    server = ready("BTC")
    server.say(bbo(NAME), summary(summary_row(NAME)))
    assert server.values(NAME)[NAME]["bid"] == 0.0065
    server.say(bbo(COIN_OPTIONS[1]))  # never taken, so never seen
    server.venue.disconnected(server.now, "cut")
    values = server.values()
    assert list(values) == [NAME]
    assert math.isnan(values[NAME]["bid"])
    assert not server.venue.is_ready
    assert server.venue.failure is None
    assert not server.venue.http_requests()
    assert not server.venue.data_to_send()
    server.venue.timer(server.now + 1)


def test_nothing_of_the_old_socket_is_left_on_the_new() -> None:
    server = ready("BTC", books=True)
    server.say(book(NAME, 10, -1, [("0.006", "5")]), NOTICE)
    server.venue.disconnected(server.now, "cut")
    server.connect()
    assert server.venue.is_ready
    assert server.venue.takeover == ""
    server.events()
    server.say(book(NAME, 11, 10, [("0.006", "6")]))
    assert not [e for e in server.events() if isinstance(e, BookEvent)], "its book starts again from a snapshot"
    first, second = ([r["id"] for r in part] for part in (server.asked[:2], server.asked[2:]))
    assert not set(first) & set(second)


def test_a_failed_attempt_is_only_told() -> None:
    venue = Okx(["BTC"], url="ws://okx.test")
    venue.disconnected(START, "could not connect")
    assert venue.take_quotes(START) is None
    assert [event.kind for event in venue.events()] == [Health.DISCONNECTED]  # type: ignore[union-attr]


# Channels that are chosen


def test_tickers_instead_of_best_levels() -> None:
    server = ready("BTC", quotes="tickers")
    server.say(ticker(NAME), ticker(DOLLAR_OPTIONS[0], bidPx="", bidSz="", askPx="525", askSz="100", last=""))
    values = server.values()
    assert (values[NAME]["bid"], values[NAME]["bid_size"], values[NAME]["last"]) == (0.0065, 2.0, 0.006)
    assert (values[NAME]["ask"], values[NAME]["ask_size"]) == (0.0075, 1.0)
    other = values[DOLLAR_OPTIONS[0]]
    assert math.isnan(other["bid"])
    assert (other["ask"], other["ask_size"], other["fields"]) == (525.0, 1.0, 1)
    assert server.venue.counters["tickers"] == 2
    names = {arg["channel"] for request in server.asked for arg in request["args"]}
    assert "bbo-tbt" not in names


def test_five_levels_instead_of_four_hundred() -> None:
    server = ready("BTC", books=True, book_channel="books5")
    channels = {arg["channel"] for request in server.asked for arg in request["args"]}
    assert "books5" in channels
    assert "books" not in channels
    server.say(book(NAME, 10, None, [("0.006", "-5")]))
    events = [event for event in server.events() if isinstance(event, BookEvent)]
    assert [event.previous_sequence for event in events] == [-1]
    server.wait(0.2, serve=False)
    assert not server.collect(), "the next one is whole anyway"


def test_greeks_are_kept_for_reference() -> None:
    server = ready("BTC")
    coin, dollar = (server.venue.universe.find("okx", name) or 0 for name in (NAME, DOLLAR_OPTIONS[0]))
    assert server.venue.greeks(coin) is None
    server.say(summary(summary_row(NAME)), summary(summary_row(DOLLAR_OPTIONS[0]), family="BTC-USD_UM"))
    server.values()
    greeks = server.venue.greeks(coin)
    assert greeks is not None
    assert (greeks.delta, greeks.gamma, greeks.vega, greeks.theta) == (
        0.373516991,
        0.0000768666,
        39.7986007518,
        -36.5170251108,
    )
    assert (greeks.coin_delta, greeks.coin_vega) == (0.3421194963, 0.0010549466)
    assert (greeks.bid_vol, greeks.ask_vol, greeks.mark_vol) == (0.4647917852, 0.469674588, 0.4686517873)
    assert (greeks.forward, greeks.venue_time_ns) == (76904.372899316, START)
    linear = server.venue.greeks(dollar)
    assert linear is not None
    assert linear.delta == 0.373516991
    assert math.isnan(linear.coin_delta), "of linear options it is not documented what they are"


@pytest.mark.parametrize(("said", "vol"), [("", None), ("0", None), ("5", None), ("5.0", None), ("4.99", 4.99)])
def test_vols_that_are_none(said: str, vol: float | None) -> None:
    server = ready("BTC")
    server.say(summary(summary_row(NAME, bidVol=said, askVol=said)))
    server.values()
    greeks = server.venue.greeks(server.venue.universe.find("okx", NAME) or 0)
    assert greeks is not None
    for got in (greeks.bid_vol, greeks.ask_vol):
        assert math.isnan(got) if vol is None else got == vol


def test_summaries_do_not_heap_up_where_nobody_takes_them() -> None:
    server = ready("BTC")
    message = summary(*[summary_row(name) for name in COIN_OPTIONS])
    for _ in range(10_000):
        server.say(message)
    assert len(server.venue._link.values._summaries) < 64
    assert len(server.values()) == 4


def test_quotes_replace_each_other_and_nothing_else_does() -> None:
    """What a replay may leave out of a second of messages changes no batch."""
    for quotes, make in (("bbo-tbt", bbo), ("tickers", ticker)):
        whole, thin = ready("BTC", quotes=quotes), ready("BTC", quotes=quotes)
        messages = [make(name, ts=str(START_MS + i)) for i in range(5) for name in COIN_OPTIONS]
        messages += [summary(summary_row(NAME)), index("BTC-USD", 76900)]
        rule = thin.venue.replaceable
        last: dict[bytes, bytes] = {}
        rest = [message for message in messages if not message.startswith(rule.prefix)]
        for message in messages:
            if message.startswith(rule.prefix):
                last[message[len(rule.prefix) :].partition(b'"')[0]] = message
        assert len(last) == 4
        assert len(rest) == 2
        whole.say(*messages)
        thin.say(*last.values(), *rest)
        assert repr(whole.values()) == repr(thin.values())


def test_everything_suspended_is_said_of_the_venue() -> None:
    server = ready("BTC_USD_UM")
    rows = [row for row in server.rows if "_UM" in row["instId"]]
    assert server.venue.suspended == ""
    for row in rows:
        assert server.venue.suspended == ""
        server.say(instruments(row | {"state": "suspend"}))
    assert "every instrument" in server.venue.suspended
    server.say(instruments(rows[0]))
    assert server.venue.suspended == ""


# In the midst


def test_resuming_in_the_midst_of_a_conversation() -> None:
    whole = ready("BTC", books=True, trades=True)
    followed = list(whole.venue.universe)
    venue = Okx(["BTC"], url="ws://okx.test", books=True, trades=True)
    venue.resume(followed, START)
    server = Server(venue)
    assert venue.is_ready
    assert not server.collect()
    assert not server.pages
    messages = [bbo(NAME), summary(summary_row(NAME)), index("BTC-USD", 76900), book(NAME, 7, -1, [("0.006", "5")])]
    server.say(*messages)
    whole.say(*messages)
    assert repr(server.values()) == repr(whole.values())
    assert [e for e in server.events() if isinstance(e, BookEvent)]
    # It lives on by itself: a new option is subscribed to, a silent link pinged.
    server.say(book(NAME, 30, 20))
    server.wait(0.2, serve=False)
    assert [one["op"] for one in server.collect()] == ["unsubscribe", "subscribe"]
    let_pass(server, 10.5)
    assert "ping" in {request["op"] for request in server.held}
    assert {i.kind for i in followed} == {Kind.OPTION, Kind.FUTURE, Kind.PERPETUAL, Kind.INDEX}


def conversation(reading: bool) -> list[bytes]:
    """Batches of a busy minute; `reading` looks at everything that may be looked at, all the time."""
    server = ready("BTC", books=True, trades=True)
    batches: list[QuoteBatch] = []
    for number in range(100):
        server.now += SECOND // 20
        ts = str(START_MS + 50 * number)
        frames = [bbo(name, (f"0.00{40 + (number + i) % 50}", "7"), ts=ts) for i, name in enumerate(COIN_OPTIONS)]
        frames += [summary(*[summary_row(name, fwdPx=str(76_000 + number)) for name in COIN_OPTIONS])]
        frames += [index("BTC-USD", 76_000 + number, int(ts)), book(NAME, number + 1, number or -1)]
        frames += [bbo(NAME)[: 40 + number % 90], b"pong", NOTICE if number == 75 else b"{}"]
        for frame in frames:
            server.say(frame)
            if reading:
                venue = server.venue
                seen = (venue.counters, venue.trouble, venue.is_ready, venue.failure, venue.next_deadline)
                assert seen is not None
                venue.events()
        server.venue.timer(server.now)
        server.serve()
        if number % 2:
            batch = server.venue.take_quotes(server.now)
            if batch is not None:
                batches.append(batch)
    return [batch.to_bytes() for batch in batches]


def test_the_same_calls_give_the_same_batches() -> None:
    first = conversation(reading=False)
    assert len(first) == 50
    assert first == conversation(reading=False)
    assert first == conversation(reading=True), "looking changes nothing"
