"""Subscribing to Bybit: acknowledgements of their own shape, refusals, limits of a connection, and topics that never speak."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.feeds.bybit_frames import (
    BTC_USDC,
    BTC_USDT,
    SECOND,
    START,
    Row,
    Server,
    acknowledgement,
    book,
    option_row,
    ready,
    ticker,
    trades,
)
from volsurf.feeds._bybit_topics import MOST_ARGS, MOST_CHARACTERS, Topics
from volsurf.feeds.bybit import Bybit
from volsurf.feeds.protocol import BookEvent, Health, HealthEvent, InstrumentEvent, TradeEvent

FIRST = f"tickers.{BTC_USDT[0]}"


def asked(underlyings: tuple[str, ...] = ("BTC",), **options: Any) -> tuple[Server, list[Row]]:
    """A connection that has just sent its subscriptions, and those."""
    server = Server(Bybit(underlyings, **options))
    server.venue.connected(START)
    server.collect()
    while server.requests:
        server.answer_page(server.requests.pop(0))
        server.collect()
    server.now += SECOND // 10
    server.venue.timer(server.now)
    return server, server.collect()


def many(expiries: int, strikes: int = 50) -> dict[str, list[Row]]:
    """A long listing: so many expiries of so many strikes, calls and puts."""
    days = [f"{day}{month}27" for month in ("MAR", "APR", "MAY") for day in range(1, 29)][:expiries]
    names = [
        f"BTC-{day}-{100_000 + 1000 * strike}-{side}-USDT" for day in days for strike in range(strikes) for side in "CP"
    ]
    return {"BTC": [option_row(name) for name in names]}


# Acknowledgements


def test_the_acknowledgement_makes_it_ready() -> None:
    server, (command,) = asked()
    assert not server.venue.is_ready
    server.say(acknowledgement(command["args"]))
    assert server.venue.is_ready
    (event,) = server.health(Health.READY)
    assert event.detail == "6 instruments, 7 topics"


def test_acknowledgements_may_come_in_parts_and_in_any_order() -> None:
    server, (command,) = asked()
    for topic in reversed(command["args"]):
        assert not server.venue.is_ready
        server.say(acknowledgement([topic]))
    assert server.venue.is_ready


def test_a_refused_topic_is_looked_up_and_asked_for_once_more() -> None:
    server, (command,) = asked()
    server.say(acknowledgement([t for t in command["args"] if t != FIRST], [FIRST]))
    (refused,) = server.health(Health.REFUSED)
    assert FIRST in refused.detail
    server.now += SECOND // 10
    server.venue.timer(server.now)
    server.collect()
    server.answer_page(server.requests.pop())
    server.now += SECOND // 10
    server.venue.timer(server.now)
    (again,) = (c for c in server.collect() if c["op"] == "subscribe")
    assert again["args"] == [FIRST]
    server.say(acknowledgement([FIRST]))
    assert server.venue.is_ready
    assert not server.venue.refused_channels


def test_a_topic_refused_twice_is_given_up_by_name() -> None:
    server = Server(Bybit(["BTC"]))
    server.refused = {FIRST}
    server.connect()
    server.wait(2)
    assert server.venue.is_ready
    assert server.venue.refused_channels == {FIRST}
    told = [event.detail for event in server.health(Health.REFUSED)]
    assert told[-1] == f"topics refused again and given up: {FIRST}"
    assert server.venue.counters["topics_refused"] == 1
    before = len(server.asked)
    server.wait(30)
    assert all(command["op"] == "ping" for command in server.asked[before:])


def test_a_subscription_without_an_answer_is_asked_again_and_then_a_failure() -> None:
    server, (command,) = asked()
    server.idle(9.5)
    assert not server.health(Health.NO_ACK)
    server.idle(1)
    assert [e.detail for e in server.health(Health.NO_ACK)] == ["7 topics were not acknowledged within 10 s"]
    assert server.venue.failure is None
    (again,) = (c for c in server.held if c is not command)
    assert again["args"] == command["args"]
    server.idle(10)
    assert server.venue.failure == "7 topics were not acknowledged within 10 s"


def test_only_what_was_not_acknowledged_is_asked_again() -> None:
    server, (command,) = asked()
    server.say(acknowledgement(command["args"][2:]))
    server.idle(10.5)
    (again,) = (c for c in server.held if c is not command)
    assert again["args"] == command["args"][:2]
    server.say(acknowledgement(again["args"]))
    assert server.venue.is_ready


@pytest.mark.parametrize("said", ["error:request args error", "Too many visits. Exceeded the API Rate Limit."])
def test_a_command_refused_without_topics_is_asked_again_soon(said: str) -> None:
    server, (command,) = asked()
    server.say(json.dumps({"success": False, "ret_msg": said, "req_id": "1", "op": "subscribe"}).encode())
    assert [e.detail for e in server.health(Health.REFUSED, Health.RATE_LIMITED)] == [f"subscribe: {said}"]
    server.idle(2.1)
    again = server.held[-1]
    assert again["args"] == command["args"]
    server.answer(again)
    assert server.venue.is_ready


def test_the_snapshot_of_a_book_stands_for_its_acknowledgement() -> None:
    server, (command,) = asked(books=True)
    books = [topic for topic in command["args"] if topic.startswith("orderbook")]
    server.say(acknowledgement([topic for topic in command["args"] if topic not in books]))
    for topic in books:
        assert not server.venue.is_ready
        server.say(book(topic.split(".")[2], 7, [["1", "1"]], [], "snapshot"))
        server.venue.timer(server.now)
    assert server.venue.is_ready


# What is subscribed to


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, {"tickers": 6, "publicTrade": 1}),
        ({"trades": False}, {"tickers": 6}),
        ({"books": True}, {"tickers": 6, "publicTrade": 1, "orderbook": 6}),
    ],
)
def test_topics_by_option(options: dict[str, bool], kinds: dict[str, int]) -> None:
    _, (command,) = asked(**options)
    found: dict[str, int] = {}
    for topic in command["args"]:
        found[topic.split(".")[0]] = found.get(topic.split(".")[0], 0) + 1
    assert found == kinds


def test_books_of_a_hundred_levels() -> None:
    server, (command,) = asked(books=True, book_depth=100)
    assert f"orderbook.100.{BTC_USDT[0]}" in command["args"]
    frame = book(BTC_USDT[0], 7, [["1", "1"]], [], "snapshot").replace(b"orderbook.25.", b"orderbook.100.")
    server.say(acknowledgement(command["args"]), frame)
    assert [e for e in server.events() if isinstance(e, BookEvent)]


def test_trades_are_those_of_this_connections_contracts() -> None:
    server = ready("BTC_USDT")
    server.say(trades("BTC", {"s": BTC_USDT[0]}, {"s": BTC_USDC[0]}))
    (event,) = (e for e in server.events() if isinstance(e, TradeEvent))
    assert server.venue.universe[event.instrument_id].symbol == BTC_USDT[0]
    assert server.venue.counters["trade_elsewhere"] == 1


def test_a_gap_is_resubscribed_and_healed_by_the_snapshot() -> None:
    server = ready(books=True)
    name = BTC_USDT[0]
    server.say(book(name, 1000, [["1", "1"]], [], "snapshot"), book(name, 1002, [["2", "1"]]))
    (gap,) = server.health(Health.GAP)
    assert gap.detail == f"{name}: update 1002 follows 1000; subscribing anew"
    before = len(server.asked)
    server.wait(0.2)
    assert [(c["op"], c["args"]) for c in server.asked[before:]] == [
        ("unsubscribe", [f"orderbook.25.{name}"]),
        ("subscribe", [f"orderbook.25.{name}"]),
    ]
    (event,) = (e for e in server.events() if isinstance(e, BookEvent))
    assert event.is_snapshot
    server.say(book(name, event.sequence + 1, [["3", "1"]]))
    assert [e.sequence for e in server.events() if isinstance(e, BookEvent)] == [event.sequence + 1]
    assert server.venue.is_ready


# Room


def test_messages_hold_as_many_topics_as_may_be() -> None:
    server = Server(Bybit(["BTC_USDT"]), many(8, 34))
    server.connect()
    commands = [c for c in server.asked if c["op"] == "subscribe"]
    assert [len(c["args"]) for c in commands] == [MOST_ARGS, 8 * 68 + 1 - MOST_ARGS]
    together = json.dumps([topic for c in commands for topic in c["args"]], separators=(",", ":"))
    assert len(together) <= MOST_CHARACTERS


def test_what_has_no_room_is_left_out_outermost_first_and_told() -> None:
    server = Server(Bybit(["BTC_USDT"]), many(12))
    server.connect()
    assert server.venue.is_ready
    topics = [topic for c in server.asked if c["op"] == "subscribe" for topic in c["args"]]
    assert MOST_CHARACTERS - 40 < len(json.dumps(topics, separators=(",", ":"))) <= MOST_CHARACTERS
    followed = {int(topic.split("-")[2]) for topic in topics if topic.startswith("tickers")}
    # The middle of every expiry is there, and what is missing are the lowest and highest strikes.
    assert max(followed) - min(followed) < 26_000
    missing = 1200 - (len(topics) - 1)
    assert server.venue.counters["topics_left_out"] == missing > 500
    (refused,) = server.health(Health.REFUSED)
    assert f"{missing} topics have no room in the 21,000 characters of one connection" in refused.detail
    assert "use more shards" in refused.detail
    assert refused.detail in server.venue.trouble
    assert "-138000-" in refused.detail


def test_books_are_left_out_before_tickers() -> None:
    server = Server(Bybit(["BTC_USDT"], books=True), many(4))
    server.connect()
    topics = [topic for c in server.asked if c["op"] == "subscribe" for topic in c["args"]]
    assert sum(topic.startswith("tickers") for topic in topics) == 400
    assert 0 < sum(topic.startswith("orderbook") for topic in topics) < 400


def test_an_expiry_makes_room() -> None:
    server = Server(Bybit(["BTC_USDT"]), many(6))
    rows = [option_row(f"BTC-16JAN27-{50_000 + 500 * i}-C-USDT") for i in range(100)]
    server.listings["BTC"] += rows
    server.connect()
    assert "no room" in server.venue.trouble
    server.events()
    server.listings["BTC"] = server.listings["BTC"][:600]
    server.wait(20, step=1.0)
    (gone,) = (e for e in server.events() if isinstance(e, InstrumentEvent))
    assert len(gone.retired) == 100
    followed = [topic for topic in server.subscribed if topic.startswith("tickers")]
    assert not [topic for topic in followed if "16JAN27" in topic]
    # 600 contracts of 35 characters and more still do not all fit, but the room is used again.
    assert len(json.dumps(list(server.subscribed), separators=(",", ":"))) > MOST_CHARACTERS - 40


def test_characters_are_counted_as_the_venue_reads_them() -> None:
    topics = Topics()
    topics.held = False
    names = [f"tickers.BTC-25JUN27-{strike}-P-USDT" for strike in range(100_000, 101_000)]
    taken = [name for name in names if topics.want(name, 1, 0)]
    assert topics.characters == len(json.dumps(taken, separators=(",", ":"))) + 1 <= MOST_CHARACTERS
    assert len(json.dumps([*taken, names[-1]], separators=(",", ":"))) > MOST_CHARACTERS
    topics.drop(taken[:10], 0)
    assert all(topics.want(name, 1, 0) for name in names[-10:])
    topics.clear()
    assert topics.characters == 2


# Silent topics


def test_a_topic_acknowledged_and_silent_is_asked_again_then_named() -> None:
    server = Server(Bybit(["BTC"]))
    server.silent = {FIRST}
    server.connect()
    server.wait(14)
    assert not server.health(Health.STALE)
    server.wait(8)
    (once,) = server.health(Health.STALE)
    assert once.detail == f"acknowledged but silent: {FIRST}; asking once more"
    assert not server.venue.trouble
    server.wait(22)
    (twice,) = server.health(Health.STALE)
    assert twice.detail == f"acknowledged again and still silent: {FIRST}"
    assert server.venue.trouble == f"1 topics acknowledged but silent: {FIRST}"
    assert server.venue.refused_channels == {FIRST}
    assert server.venue.failure is None
    asked_for = [c for c in server.asked if FIRST in c.get("args", ())]
    server.wait(100, step=1.0)
    assert [c for c in server.asked if FIRST in c.get("args", ())] == asked_for, "and left alone from then on"
    server.say(ticker(BTC_USDT[0], server.ms))
    server.silent.clear()
    server.wait(1)
    (recovered,) = server.health(Health.RECOVERED)
    assert FIRST in recovered.detail
    assert not server.venue.trouble


def test_a_silent_book_is_named_too() -> None:
    server = Server(Bybit(["BTC"], books=True))
    topic = f"orderbook.25.{BTC_USDT[0]}"
    server.silent = {topic}
    server.connect()
    server.wait(45)
    assert server.venue.trouble == f"1 topics acknowledged but silent: {topic}"


def test_trades_are_expected_of_nobody() -> None:
    server = ready()
    server.wait(400, step=1.0)
    assert not server.health(Health.STALE)
    assert "publicTrade.BTC" not in server.venue.trouble


def test_a_ticker_that_stops_is_subscribed_anew_without_an_alarm() -> None:
    server = ready()
    before = len(server.asked)
    server.wait(310, quiet=(FIRST,), step=1.0)
    commands = [c for c in server.asked[before:] if c["op"] != "ping"]
    assert [(c["op"], c["args"]) for c in commands] == [("unsubscribe", [FIRST]), ("subscribe", [FIRST])]
    assert not server.health(Health.STALE)
    assert server.venue.counters["topics_asked_again"] == 1
    # Its snapshot is a word: the next question is five minutes away.
    server.wait(200, quiet=(FIRST,), step=1.0)
    assert server.venue.counters["topics_asked_again"] == 1


def test_an_expiry_that_falls_silent_makes_the_listing_be_read() -> None:
    server = Server(Bybit(["BTC"]))
    server.now = START + 3600 * SECOND
    server.connect()
    server.wait(2)
    server.events()
    gone = tuple(name for name in BTC_USDT if "26MAR27" in name)
    quiet = tuple(f"tickers.{name}" for name in gone)
    server.listings["BTC"] = [row for row in server.listings["BTC"] if row["symbol"] not in gone]
    before = len(server.urls)
    server.wait(19, quiet=quiet)
    assert len(server.urls) == before
    server.wait(14, quiet=quiet)
    events = server.events()
    (stale,) = (e for e in events if isinstance(e, HealthEvent) and e.kind is Health.STALE)
    assert stale.detail.startswith("no ticker of any option of BTC-26MAR27 in USDT for 2")
    retired = [server.venue.universe[row].symbol for e in events if isinstance(e, InstrumentEvent) for row in e.retired]
    assert sorted(retired) == sorted(gone)
    server.wait(5)
    assert not server.venue.trouble


def test_an_expiry_that_is_still_listed_is_told_until_it_speaks() -> None:
    server = Server(Bybit(["BTC"]))
    server.now = START + 3600 * SECOND
    server.connect()
    server.wait(2)
    server.events()
    quiet = tuple(f"tickers.{name}" for name in BTC_USDC)
    server.wait(60, quiet=quiet)
    assert len(server.health(Health.STALE)) == 1
    assert server.venue.trouble == "no ticker of any option of BTC-26MAR27 in USDC"
    server.wait(10)
    assert [e.detail for e in server.health()] == ["BTC-26MAR27 in USDC is heard again"]
    assert not server.venue.trouble
