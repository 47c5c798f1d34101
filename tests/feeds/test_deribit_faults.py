"""What happens to a Deribit connection that is not asked for: expiries, states, errors, disconnects, floods."""

from __future__ import annotations

import math

import pytest

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    SECOND,
    START,
    Server,
    index_price,
    notification,
    option_row,
    ready,
    standard_listings,
    state_change,
    ticker,
)
from volsurf.feeds.book import Applied, BookState, OrderBook
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import BookEvent, Health, InstrumentEvent
from volsurf.instruments import Kind

DAY = 86_400 * SECOND


# Expiry


def test_expiry_by_time_waits_for_both_clocks() -> None:
    server = Server(Deribit(["BTC"]))
    server.now = START + DAY - 20 * SECOND  # the 16JAN27 option expires at START + 1 day
    server.connect()
    name = "BTC-16JAN27-75000-P"
    row = server.venue.universe.find("deribit", name)
    server.say(ticker(name))
    server.venue.take_quotes(server.now)
    server.events()
    server.wait(45)
    assert server.venue.universe.active[row]
    server.wait(10)
    assert not server.venue.universe.active[row]
    (change,) = [event for event in server.events() if isinstance(event, InstrumentEvent)]
    assert change.retired == (row,)
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    mine = batch.instrument_id == row
    assert mine.sum() == 1
    assert math.isnan(batch.bid[mine][0])
    unsubscribed = [c for r in server.asked if r["method"] == "public/unsubscribe" for c in r["params"]["channels"]]
    assert unsubscribed == [f"ticker.{name}.100ms"]
    server.say(ticker(name))
    server.venue.take_quotes(server.now)
    assert server.venue.counters["ticker_unknown"] == 1


def test_one_absurd_venue_time_expires_nothing() -> None:
    server = ready()
    server.say(index_price("btc_usd", 76900.0, 8_000_000_000_000))
    server.venue.timer(server.now)
    assert bool(server.venue.universe.active.all())


# States of instruments and platform


@pytest.mark.parametrize("state", ["settlement", "delivered", "inactive", "archivized", "closed"])
def test_what_ends_is_unsubscribed_and_comes_back_with_its_id_if_it_opens_again(state: str) -> None:
    server = ready(books=True)
    name = BTC_OPTIONS[0]
    row = server.venue.universe.find("deribit", name)
    server.say(ticker(name), state_change(name, state))
    server.wait(0.2)
    (request,) = [r for r in server.asked if r["method"] == "public/unsubscribe"]
    assert set(request["params"]["channels"]) == {f"ticker.{name}.100ms", f"book.{name}.100ms"}
    assert not server.venue.universe.active[row]
    batch = server.venue.take_quotes(server.now)
    assert row not in (batch.instrument_id.tolist() if batch is not None else [])
    server.say(state_change(name, "open"))
    server.wait(1.5)
    assert server.venue.universe.active[row]
    changes = [event for event in server.events() if isinstance(event, InstrumentEvent)]
    assert [change.retired for change in changes] == [(row,), ()]
    assert [change.added for change in changes] == [(), (row,)]


def test_a_lock_clears_what_was_quoted_and_the_unlock_lets_quotes_in_again() -> None:
    server = ready("BTC", "SOL")
    btc, sol = BTC_OPTIONS[0], "SOL_USDC-29JAN27-120-C"
    server.say(ticker(btc), ticker(sol))
    server.venue.take_quotes(server.now)
    server.say(notification("platform_state", {"price_index": "btc_usd", "locked": True}))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert [server.venue.universe[int(row)].symbol for row in batch.instrument_id] == [btc]
    assert math.isnan(batch.bid[0])
    server.say(ticker(btc), notification("platform_state", {"price_index": "btc_usd", "locked": False}), ticker(btc))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert batch.bid[0] == 0.0065
    assert [event.kind for event in server.health()] == [Health.MAINTENANCE, Health.RECOVERED]


def test_a_lock_holds_for_what_lists_while_it_lasts() -> None:
    server = ready()
    server.say(notification("platform_state", {"price_index": "btc_usd", "locked": "partial"}))
    new = "BTC-17JAN27-90000-C"
    server.listings[("BTC", "option")].append(option_row(new))
    server.say(state_change(new, "open"))
    server.wait(1.5)
    server.venue.take_quotes(server.now)
    server.say(ticker(new))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert math.isnan(batch.bid[0])


def test_a_new_socket_forgets_the_lock() -> None:
    server = ready()
    assert not server.venue.suspended
    server.say(notification("platform_state", {"maintenance": True}))
    assert server.venue.suspended == "the platform is in maintenance"
    server.venue.disconnected(server.now, "closed")
    server.connect()
    assert not server.venue.suspended
    server.venue.take_quotes(server.now)
    server.say(ticker(BTC_OPTIONS[0]))
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    assert batch.bid[0] == 0.0065


# Errors


def test_too_many_requests_waits_for_credits() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    request = server.collect()[1]
    server.error(request["id"], 10028, "too_many_requests", {"wait": 1})
    assert "too_many_requests" in (server.venue.failure or "")
    assert server.venue.not_before >= server.now + 3 * SECOND
    assert server.health(Health.RATE_LIMITED)
    server.venue.disconnected(server.now, "closed")
    assert server.venue.failure is None
    server.connect()
    assert server.venue.is_ready


def test_raw_without_a_login_falls_back_to_100ms() -> None:
    server = Server(Deribit(["BTC"], interval="raw", books=True))
    server.venue.connected(START)
    for request in server.collect():
        server.answer(request)
    (subscribe,) = server.collect()
    assert f"ticker.{BTC_OPTIONS[0]}.raw" in subscribe["params"]["channels"]
    server.held.clear()
    server.error(subscribe["id"], 13778, "raw_subscriptions_not_available_for_unauthorized")
    server.wait(2)
    assert server.venue.is_ready
    assert any("raw_subscriptions" in event.detail for event in server.health(Health.REFUSED))
    last = {c for r in server.asked if r["method"] == "public/subscribe" for c in r["params"]["channels"]}
    assert {f"{kind}.{name}.100ms" for kind in ("ticker", "book") for name in BTC_OPTIONS} <= last
    assert {"deribit_price_index.btc_usd", "platform_state"} <= last
    assert server.venue.refused_channels == frozenset()


@pytest.mark.parametrize("method", ["public/get_instruments", "public/subscribe"])
def test_a_passing_error_is_asked_again_and_a_lasting_one_gives_the_connection_up(method: str) -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    failures = 0
    for _ in range(30):
        for request in server.collect():
            if request["method"] == method:
                failures += 1
                server.error(request["id"], 13028, "temporarily_unavailable")
            else:
                server.answer(request)
        server.now += SECOND // 2
        server.venue.timer(server.now)
        if server.venue.failure is not None:
            break
    assert failures >= 3
    assert "temporarily_unavailable" in (server.venue.failure or "")


def test_a_currency_that_is_refused_leaves_the_others() -> None:
    server = Server(Deribit(["BTC", "XRP_USDT"]))
    server.venue.connected(START)
    for request in server.collect():
        if request["params"].get("currency") == "USDT":
            server.error(request["id"], -32602, "Invalid params", {"param": "currency", "reason": "unknown"})
        else:
            server.answer(request)
    server.held.clear()
    server.serve()
    assert server.venue.is_ready
    assert server.venue.fatal is None
    details = [event.detail for event in server.health(Health.REFUSED)]
    assert any("currency" in detail for detail in details)
    assert any("XRP_USDT" in detail for detail in details)


def test_a_refused_subscription_is_retried_once_and_named() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    refused = 0
    for _ in range(10):
        for request in server.collect():
            if request["method"] == "public/subscribe":
                refused += 1
                server.error(request["id"], -32602, "Invalid params")
            else:
                server.answer(request)
        server.now += SECOND // 2
        server.venue.timer(server.now)
    assert refused == 3, "once whole; then what needs no look-up, and what does"
    assert server.venue.is_ready
    assert f"ticker.{BTC_OPTIONS[0]}.100ms" in server.venue.refused_channels


def test_connection_too_slow_as_message_and_as_the_reason_of_the_close() -> None:
    server = ready()
    server.say(b'{"jsonrpc":"2.0","error":{"code":11094,"message":"connection_too_slow"}}')
    assert server.venue.failure == "connection_too_slow"
    server.venue.disconnected(server.now, "closed by the venue with code 1008 connection_too_slow")
    assert server.venue.counters["connection_too_slow"] == 1
    server.connect()
    server.venue.disconnected(server.now, "closed by the venue with code 1008 connection_too_slow")
    assert server.venue.counters["connection_too_slow"] == 2
    told = server.health(Health.TOO_SLOW)
    assert len(told) == 2
    assert "shards" in told[0].detail


# Disconnects


def test_a_disconnect_clears_exactly_what_was_quoted() -> None:
    server = ready()
    quoted, one_sided, empty = BTC_OPTIONS[:3]
    server.say(
        ticker(quoted),
        ticker(one_sided, best_bid_price=0.0, best_bid_amount=0.0),
        ticker(empty, best_bid_price=0.0, best_ask_price=0.0),
        index_price("btc_usd", 76900.0),
    )
    server.venue.take_quotes(server.now)
    server.say(ticker(quoted, best_bid_price=0.0066))
    server.venue.disconnected(server.now, "closed")
    batch = server.venue.take_quotes(server.now)
    assert batch is not None
    names = {server.venue.universe[int(row)].symbol for row in batch.instrument_id}
    assert names == {quoted, one_sided}
    assert all(map(math.isnan, batch.bid))
    assert set(batch.fields.tolist()) == {1}
    assert server.venue.take_quotes(server.now) is None
    assert not server.venue.is_ready
    assert server.venue.data_to_send() == []


def test_failing_to_connect_again_and_again_is_told_each_time_and_costs_nothing() -> None:
    server = ready()
    for _ in range(5):
        server.venue.disconnected(server.now, "could not connect: refused")
    assert [event.kind for event in server.health()] == [Health.DISCONNECTED] * 5
    assert server.venue.take_quotes(server.now) is None


def test_a_book_gap_is_mended_by_a_fresh_snapshot() -> None:
    server = ready(books=True)
    name = BTC_OPTIONS[0]
    channel = f"book.{name}.100ms"

    def book(kind: str, number: int, previous: int | None = None) -> bytes:
        data = {"type": kind, "timestamp": 1, "instrument_name": name, "change_id": number, "bids": [], "asks": []}
        return notification(channel, data | ({} if previous is None else {"prev_change_id": previous}))

    server.say(book("snapshot", 10))
    kept = OrderBook()
    for event in server.events():
        if isinstance(event, BookEvent):
            kept.apply(event)
    assert kept.state is BookState.EMPTY
    gap_at, asked = server.now, len(server.asked)
    server.say(book("change", 12, 11), book("change", 13, 12))
    lost = [event for event in server.events() if isinstance(event, BookEvent)]
    assert [kept.apply(event) for event in lost] == [Applied.GAP]
    assert kept.state is BookState.WAITING
    while len(server.asked) < asked + 2:
        server.wait(0.01, step=0.01)
        assert server.now - gap_at < SECOND // 4, "asked for a new snapshot well within a second"
    later = [(r["method"], r["params"]["channels"]) for r in server.asked[-2:]]
    assert later == [("public/unsubscribe", [channel]), ("public/subscribe", [channel])]
    server.say(book("change", 14, 13), book("snapshot", 20), book("change", 21, 20))
    books = [event for event in server.events() if isinstance(event, BookEvent)]
    assert [event.sequence for event in books] == [20, 21]
    assert [kept.apply(event) for event in books] == [Applied.CHANGED, Applied.UNCHANGED]
    assert server.venue.refused_channels == frozenset()


def test_gaps_without_end_never_ask_for_more_than_the_credits_admit() -> None:
    server = ready(books=True)
    began, asked = server.now, len(server.asked)
    for number in range(1, 400):
        for name in BTC_OPTIONS:
            data = {"timestamp": 1, "instrument_name": name, "bids": [], "asks": [], "change_id": 10 * number}
            channel = f"book.{name}.100ms"
            server.say(notification(channel, data | {"type": "snapshot"}))
            server.say(
                notification(channel, data | {"type": "change", "change_id": 10 * number + 2, "prev_change_id": 1})
            )
        server.wait(0.02, step=0.02)
    requests = [r for r in server.asked[asked:] if "subscribe" in r["method"]]
    seconds = (server.now - began) / SECOND
    assert 10 < len(requests) <= 10 + seconds / 0.3
    # What waits is one message of each kind, not a line of them: the newest gap is asked for within a second.
    waiting = server.venue._link.requests.outstanding("public/subscribe")
    assert waiting <= 1
    server.wait(1.0)
    assert server.venue._link.requests.outstanding("public/subscribe") == 0


def test_a_book_that_cannot_be_right_is_asked_for_again_where_books_are_followed() -> None:
    server = ready(books=True)
    name = BTC_OPTIONS[0]
    row = server.venue.universe.find("deribit", name)
    assert row is not None
    server.venue.restart_book(row, server.now)
    server.wait(0.2)
    assert [r["params"]["channels"] for r in server.asked[-2:]] == [[f"book.{name}.100ms"]] * 2
    without = ready()
    asked = len(without.asked)
    without.venue.restart_book(row, without.now)
    without.wait(0.2)
    assert len(without.asked) == asked


# Reports


def test_a_flood_of_garbage_is_one_event_a_second_with_its_counts() -> None:
    server = ready()
    for _ in range(10):
        server.say(*([b"garbage"] * 500), *([b"{}"] * 100))
        server.wait(0.5)
    events = server.health(Health.MALFORMED)
    assert 3 <= len(events) <= 7
    assert server.venue.counters["malformed.json"] == 5000
    assert server.venue.counters["malformed.envelope"] == 1000
    assert "× json" in events[1].detail
    assert server.venue.failure is None


def test_nothing_accumulates_when_nobody_takes_events() -> None:
    server = ready()
    trade = {"timestamp": 1, "price": 0.1, "amount": 1, "direction": "buy", "instrument_name": BTC_OPTIONS[0]}
    many = notification("trades.option.BTC.100ms", [trade] * 50_000)
    for _ in range(5):
        server.say(many)
    assert len(server.events()) == 200_000
    assert server.venue.counters["events_dropped"] == 50_000


def test_the_universe_of_a_venue_has_what_its_events_said() -> None:
    server = Server(Deribit(["BTC", "SOL"])).connect()
    added = [row for event in server.events() if isinstance(event, InstrumentEvent) for row in event.added]
    assert sorted(added) == list(range(len(server.venue.universe)))
    expected = {row["instrument_name"] for rows in standard_listings().values() for row in rows}
    expected = {name for name in expected if not name.startswith("XRP")}
    assert {i.symbol for i in server.venue.universe if i.kind is not Kind.INDEX} == expected
