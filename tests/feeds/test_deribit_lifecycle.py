"""One connection through everything that goes wrong, under a clock moved by hand."""

from __future__ import annotations

import json
import math
import time
from collections import Counter

import pytest

from tests.feeds.deribit_frames import (
    BTC_OPTIONS,
    HEARTBEAT,
    SECOND,
    START,
    TEST_REQUEST,
    Server,
    index_price,
    notification,
    option_row,
    standard_listings,
    state_change,
    ticker,
)
from volsurf.feeds.deribit import Deribit
from volsurf.feeds.protocol import BookEvent, Health, InstrumentEvent
from volsurf.instruments import Kind

DAY = 86_400 * SECOND


def ready(*underlyings: str, **options: bool) -> Server:
    """A connection that has everything, with nothing left to read."""
    server = Server(Deribit(underlyings or ("BTC",), **options)).connect()
    assert server.venue.is_ready
    server.events()
    server.venue.take_quotes(server.now)
    return server


def let_pass(server: Server, seconds: float, step: float = 0.25) -> None:
    """Time without a word from the server."""
    server.wait(seconds, serve=False, tell=(), step=step)
    server.collect()


# Requests that are not answered


def test_a_server_that_never_answers() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.collect()
    let_pass(server, 9.5)
    assert server.venue.failure is None
    assert not server.health(Health.NO_ACK)
    let_pass(server, 1)
    unanswered = server.health(Health.NO_ACK)
    assert {event.detail.split()[0] for event in unanswered} == {"public/set_heartbeat", "public/get_instruments"}
    assert server.venue.failure is None, "asked once more first"
    let_pass(server, 11)
    assert server.venue.failure is not None
    assert "not answered within 10 s" in server.venue.failure
    assert not server.venue.is_ready


def test_a_server_that_lists_but_never_acknowledges_subscriptions() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    for request in server.collect():
        server.answer(request)
    server.held.clear()
    for _ in range(44):
        server.wait(0.5, serve=False)
        server.collect()
        for request in server.held:
            if request["method"] == "public/test":
                server.answer(request)
        server.held.clear()
        if server.venue.failure is not None:
            break
    assert "public/subscribe was not answered" in (server.venue.failure or "")
    subscribes = [request for request in server.asked if request["method"] == "public/subscribe"]
    assert len(subscribes) == 2
    assert subscribes[0]["params"] == subscribes[1]["params"]
    assert subscribes[0]["id"] != subscribes[1]["id"]


def test_a_late_answer_to_the_first_asking_harms_nothing() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    first = server.collect()
    let_pass(server, 10.5)
    for request in first:
        server.answer(request)
    assert server.venue.counters["replies_unclaimed"] == 3
    server.held = [request for request in server.asked if request not in first]
    server.serve()
    assert server.venue.is_ready


def test_an_answer_that_is_no_list_is_asked_for_again_and_then_given_up() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    for _ in range(3):
        for request in server.collect():
            if request["method"] == "public/get_instruments" and request["params"]["kind"] == "option":
                server.reply(request["id"], "maintenance page")
            else:
                server.answer(request)
    assert server.venue.counters["malformed.schema"] == 3
    assert "something else than a list" in (server.venue.failure or "")


# Silence


def test_a_silent_server_is_stale_then_probed_then_given_up() -> None:
    server = ready()
    let_pass(server, 9.5)
    assert not server.health()
    let_pass(server, 1)
    stale = server.health(Health.STALE)
    assert [event.detail.split()[1] for event in stale] == ["btc_usd"]
    assert [request["method"] for request in server.held] == ["public/test"]
    assert server.venue.failure is None
    let_pass(server, 10)
    assert server.venue.failure is not None
    assert "public/test was not answered" in server.venue.failure
    assert server.health(Health.NO_ACK)


def test_a_quiet_market_on_a_link_that_lives_is_stale_and_recovers() -> None:
    server = ready()
    server.wait(20, tell=())
    assert len(server.health(Health.STALE)) == 1, "told once, not at every timer"
    assert server.venue.failure is None
    server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
    (recovered,) = server.health(Health.RECOVERED)
    assert "btc_usd" in recovered.detail
    server.wait(11, tell=())
    assert len(server.health(Health.STALE)) == 1, "and again when it falls silent again"


def test_an_index_lost_for_a_minute_on_a_living_link_is_a_failure() -> None:
    server = ready()
    server.wait(59, tell=())
    assert server.venue.failure is None
    server.wait(3, tell=())
    assert "btc_usd silent for 60 s" in (server.venue.failure or "")


def test_maintenance_excuses_silence() -> None:
    server = ready()
    server.say(notification("platform_state", {"maintenance": True}))
    assert [event.kind for event in server.health()] == [Health.MAINTENANCE]
    server.wait(200, tell=())
    assert server.venue.failure is None


def test_one_silent_index_of_two_is_named() -> None:
    server = ready("BTC", "SOL")
    server.wait(12, tell=("btc_usd",))
    (stale,) = server.health(Health.STALE)
    assert "sol_usdc" in stale.detail


def test_missing_heartbeats_are_stale() -> None:
    server = ready()
    for _ in range(90):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
        server.venue.timer(server.now)
        server.serve()
    (stale,) = server.health(Health.STALE)
    assert "no heartbeat" in stale.detail
    assert server.venue.failure is None
    server.say(HEARTBEAT)
    assert [event.kind for event in server.health()] == [Health.RECOVERED]


# Heartbeats


def test_a_test_request_is_answered_before_everything_else() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.say(TEST_REQUEST, TEST_REQUEST)
    methods = [json.loads(data)["method"] for data in server.venue.data_to_send()]
    assert methods[:2] == ["public/test", "public/test"]
    assert set(methods[2:]) == {"public/set_heartbeat", "public/get_instruments"}
    assert server.venue.counters["heartbeats_answered"] == 2


def test_a_refused_heartbeat_is_told_and_none_is_expected() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    requests = server.collect()
    server.error(requests[0]["id"], -32602, "Invalid params", {"reason": "value must be >= 10", "param": "interval"})
    server.held = requests[1:]
    server.serve()
    assert server.venue.is_ready
    assert any("value must be >= 10" in event.detail for event in server.health(Health.REFUSED))
    for _ in range(240):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000))
        server.venue.timer(server.now)
        server.serve()
    assert not server.health(Health.STALE)


# Clocks


@pytest.mark.parametrize("step", [-3600.0, -1.0, 6.0, 3600.0, 400 * 86400.0, -400 * 86400.0])
def test_a_clock_step_is_told_and_nothing_expires_or_goes_stale(step: float) -> None:
    server = ready()
    server.wait(3)
    server.events()
    before = int(server.venue.universe.active.sum())
    server.now += round(step * SECOND)
    server.venue.timer(server.now)
    (told,) = server.health()
    assert told.kind is Health.CLOCK_STEP
    assert f"{abs(step):.1f} s" in told.detail
    assert ("back" in told.detail) == (step < 0)
    assert [request["method"] for request in server.collect()] == ["public/test"], "the socket may be dead: ask"
    # From here the venue's own time goes on as it was, whatever the local clock says.
    offset = round(step * SECOND)
    for _ in range(120):
        server.now += SECOND // 2
        server.say(index_price("btc_usd", 76900.0, (server.now - offset) // 1_000_000), HEARTBEAT)
        server.venue.timer(server.now)
        server.serve()
    assert server.venue.failure is None
    assert int(server.venue.universe.active.sum()) == before
    assert not server.events()


def test_a_small_correction_of_the_clock_is_none() -> None:
    server = ready()
    for delta in (-0.09, 0.5, -0.05, 0.5):
        server.now += round(delta * SECOND)
        server.venue.timer(server.now)
    assert not server.events()


def test_after_a_suspension_a_dead_socket_is_noticed() -> None:
    server = ready()
    server.now += 3600 * SECOND
    server.venue.timer(server.now)
    assert [event.kind for event in server.health()] == [Health.CLOCK_STEP]
    let_pass(server, 10.5)
    assert "public/test was not answered" in (server.venue.failure or "")


def test_a_step_while_requests_are_pending_neither_expires_nor_forgets_them() -> None:
    server = Server(Deribit(["BTC"]))
    server.venue.connected(START)
    server.collect()
    server.now -= 7200 * SECOND
    let_pass(server, 8)
    server.now += 7200 * SECOND
    let_pass(server, 1)
    assert not server.health(Health.NO_ACK)
    let_pass(server, 1.5)
    assert server.health(Health.NO_ACK)


def test_the_deadline_is_never_more_than_a_second_away() -> None:
    server = ready()
    for _ in range(100):
        deadline = server.venue.next_deadline
        assert deadline is not None
        assert server.now < deadline <= server.now + SECOND
        server.now = deadline
        server.say(index_price("btc_usd", 76900.0, server.now // 1_000_000), HEARTBEAT)
        server.venue.timer(server.now)
    server.venue.disconnected(server.now, "closed")
    assert server.venue.next_deadline is None


def test_twenty_four_hours() -> None:
    """A day with its 08:00: dailies expire by state and by time, new ones list, and nothing else happens."""
    server = Server(Deribit(["BTC"]))
    tomorrow = [f"BTC-16JAN27-{strike}-{side}" for strike in range(70_000, 80_000, 1_000) for side in "CP"]
    after = [name.replace("16JAN27", "17JAN27") for name in tomorrow]
    server.listings[("BTC", "option")] += [option_row(name) for name in tomorrow if name not in BTC_OPTIONS]
    server.connect()
    server.events()
    started = time.perf_counter()
    server.wait(24 * 3600 - 10, step=1.0)
    assert not [event for event in server.events() if not isinstance(event, InstrumentEvent)]
    assert int(server.venue.universe.active.sum()) == len(server.venue.universe)
    # 08:00: the venue tells of half of what expires, and lists as much again.
    server.listings[("BTC", "option")] = [option_row(name) for name in (*BTC_OPTIONS[:3], *after)]
    server.wait(11, step=1.0)
    server.say(*(state_change(name, "delivered") for name in tomorrow[::2]))
    server.say(*(state_change(name, "open") for name in after))
    server.wait(120, step=1.0)
    events = server.events()
    changes = [event for event in events if isinstance(event, InstrumentEvent)]
    universe = server.venue.universe
    retired = {universe[row].symbol for event in changes for row in event.retired}
    assert retired == set(tomorrow) | {"BTC-16JAN27-75000-P"}
    assert {universe[row].symbol for event in changes for row in event.added} == set(after)
    assert len(events) == len(changes), "and nothing to worry about"
    asked = Counter(request["method"] for request in server.asked)
    assert asked["public/unsubscribe"] <= 2
    assert time.perf_counter() - started < 30


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
    server.say(notification("platform_state", {"maintenance": True}))
    server.venue.disconnected(server.now, "closed")
    server.connect()
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

    server.say(book("snapshot", 10), book("change", 12, 11), book("change", 13, 12))
    server.wait(0.2)
    later = [(r["method"], r["params"]["channels"]) for r in server.asked[-2:]]
    assert later == [("public/unsubscribe", [channel]), ("public/subscribe", [channel])]
    server.say(book("change", 14, 13), book("snapshot", 20), book("change", 21, 20))
    books = [event.sequence for event in server.events() if isinstance(event, BookEvent)]
    assert books == [10, 20, 21]
    assert server.venue.refused_channels == frozenset()


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
